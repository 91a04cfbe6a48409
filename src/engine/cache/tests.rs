use std::{fs, time::Duration};

use super::*;

fn cache(max_bytes: u64) -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(CacheOptions {
        dir: dir.path().join("deep"),
        max_bytes,
    });
    (dir, cache)
}

fn get(cache: &Cache, key: &[u8]) -> (Option<Vec<u8>>, usize) {
    let mut counts = CacheCounts::default();
    let payload = cache.get("kv", key, &mut counts);
    (payload, counts.n_faults)
}

#[test]
fn an_entry_is_found_under_its_key_and_kind_only() {
    let (_dir, cache) = cache(u64::MAX);
    assert_eq!(get(&cache, b"a"), (None, 0)); // no directory yet
    let mut counts = CacheCounts::default();
    cache.put("kv", b"a", b"payload", &mut counts);
    assert_eq!((counts.n_written, counts.n_faults), (1, 0));
    assert_eq!(get(&cache, b"a"), (Some(b"payload".to_vec()), 0));
    assert_eq!(get(&cache, b"b"), (None, 0));
    assert_eq!(cache.get("other", b"a", &mut counts), None);
    cache.put("kv", b"a", b"", &mut counts);
    assert_eq!(get(&cache, b"a"), (Some(Vec::new()), 0));
}

#[test]
fn every_truncation_and_every_changed_byte_is_a_miss() {
    let (_dir, cache) = cache(u64::MAX);
    cache.put("kv", b"key", b"some payload", &mut CacheCounts::default());
    let path = cache.path("kv", b"key");
    let whole = fs::read(&path).unwrap();
    for n in 0..whole.len() {
        fs::write(&path, &whole[..n]).unwrap();
        assert_eq!(get(&cache, b"key"), (None, 1), "cut to {n} bytes");
        let mut flipped = whole.clone();
        flipped[n] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        assert_eq!(get(&cache, b"key"), (None, 1), "byte {n} flipped");
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert_eq!(get(&cache, b"key"), (None, 1), "longer");
    fs::write(&path, &whole).unwrap();
    assert_eq!(get(&cache, b"key").1, 0);
}

#[test]
fn an_entry_under_the_name_of_another_is_a_miss() {
    let (_dir, cache) = cache(u64::MAX);
    cache.put("kv", b"a", b"payload of a", &mut CacheCounts::default());
    fs::rename(cache.path("kv", b"a"), cache.path("kv", b"b")).unwrap();
    assert_eq!(get(&cache, b"b"), (None, 1));
}

#[test]
fn the_least_recently_used_entries_are_removed_and_foreign_files_stay() {
    let (_dir, cache) = cache(500);
    let put = |key: &[u8]| cache.put("kv", key, &[0; 100], &mut CacheCounts::default());
    let age = |key: &[u8], seconds| {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        store::touch(&cache.path("kv", key), then);
    };
    put(b"a");
    let foreign = cache.dir().join("notes.txt");
    fs::write(&foreign, [0; 2000]).unwrap();
    let abandoned = cache.dir().join(".partial-x");
    fs::write(&abandoned, b"half").unwrap();
    store::touch(&abandoned, SystemTime::now() - Duration::from_secs(7200));
    put(b"b");
    put(b"c");
    age(b"a", 30);
    age(b"b", 20);
    age(b"c", 10);
    assert!(get(&cache, b"a").0.is_some()); // used just now
    put(b"d");
    let there = [b"a", b"b", b"c", b"d"].map(|key| cache.path("kv", key).exists());
    assert_eq!(there, [true, false, true, true]);
    assert!(foreign.exists() && !abandoned.exists());
}

#[test]
fn an_entry_larger_than_the_limit_replaces_all_others() {
    let (_dir, cache) = cache(10);
    let put = |key: &[u8]| cache.put("kv", key, &[0; 100], &mut CacheCounts::default());
    put(b"a");
    put(b"b");
    assert!(get(&cache, b"a").0.is_none());
    assert!(get(&cache, b"b").0.is_some());
}

#[test]
fn a_directory_that_cannot_be_written_is_counted_as_a_fault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let cache = Cache::new(CacheOptions {
        dir: file.path().join("below a file"),
        max_bytes: 10,
    });
    let mut counts = CacheCounts::default();
    cache.put("kv", b"a", b"payload", &mut counts);
    assert_eq!((counts.n_written, counts.n_faults), (0, 1));
    assert_eq!(get(&cache, b"a").0, None);
}

#[test]
fn threads_can_write_and_read_a_directory_concurrently() {
    let (_dir, cache) = cache(2000);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..40u8 {
                    let mut counts = CacheCounts::default();
                    let key = [(thread + round) % 6];
                    if let Some(payload) = cache.get("kv", &key, &mut counts) {
                        assert_eq!(payload, [key[0]; 300]);
                    }
                    cache.put("kv", &key, &[key[0]; 300], &mut counts);
                    assert_eq!(counts.n_faults, 0);
                }
            });
        }
    });
}
