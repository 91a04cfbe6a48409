use std::{
    fs::File,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;

/// The pictures reported while `act` runs, up to `last.png`.
fn reported(dir: &Path, act: impl FnOnce(&Path) + Send) -> Vec<String> {
    let mut names = Vec::new();
    thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        scope.spawn(move || {
            is_ready.recv().unwrap();
            act(dir);
            fs::rename(dir.join("last.tmp"), dir.join("last.png")).unwrap();
        });
        fs::write(dir.join("last.tmp"), "1").unwrap();
        fs::write(dir.join("first.png"), "1").unwrap(); // exists before; shows that the watch is active
        let selection = Selection::new(&[], Some(&dir.join("out")));
        watch(dir, &selection, |arrival| {
            let Arrival::Picture(found) = arrival else {
                return true;
            };
            let name = found.name.to_str().unwrap().to_owned();
            let size = fs::read(&found.path).unwrap().len();
            if name == "first.png" {
                ready.send(()).unwrap();
            } else if !names.contains(&format!("{name} {size}")) {
                names.push(format!("{name} {size}"));
            }
            name != "last.png"
        })
        .unwrap();
    });
    names.pop();
    names
}

#[test]
fn a_slowly_written_file_is_reported_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let names = reported(dir.path(), |dir| {
        let mut file = File::create(dir.join("slow.jpg")).unwrap();
        for _ in 0..3 {
            file.write_all(b"12345").unwrap();
            thread::sleep(UNTOUCHED / 2);
        }
        drop(file);
        thread::sleep(2 * AFTER_CLOSE);
    });
    assert_eq!(names, ["slow.jpg 15"]);
}

#[test]
fn moved_files_and_folders_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let names = reported(dir.path(), |dir| {
        fs::write(dir.join(".b.png.part"), "123").unwrap();
        fs::rename(dir.join(".b.png.part"), dir.join("b.png")).unwrap();
        fs::write(dir.join("out/copy.png"), "1").unwrap();
        fs::write(dir.join("notes.txt"), "1").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir(elsewhere.path().join("new")).unwrap();
        fs::write(elsewhere.path().join("new/c.webp"), "1234").unwrap();
        fs::rename(elsewhere.path().join("new"), dir.join("new")).unwrap();
        thread::sleep(UNTOUCHED + 2 * AFTER_CLOSE);
        fs::write(dir.join("new/d.png"), "12345").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
    });
    assert_eq!(names, ["b.png 3", "new/c.webp 4", "new/d.png 5"]);
}

#[test]
fn a_replaced_folder_is_watched_anew() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    for name in ["a", "b", "a/sub", "b/sub", "c"] {
        fs::create_dir(path(name)).unwrap();
    }
    symlink("a", path("incoming")).unwrap();
    let names = reported(&path("incoming"), |dir| {
        // The folder is renamed and another one takes its place.
        fs::rename(dir.join("sub"), dir.join("moved")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        thread::sleep(UNTOUCHED);
        fs::write(dir.join("moved/b.png"), "12").unwrap();
        fs::write(dir.join("sub/c.png"), "123").unwrap();
        // A link to a folder elsewhere.
        symlink("../c", dir.join("link")).unwrap();
        thread::sleep(UNTOUCHED);
        fs::write(path("c/d.png"), "1234").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
        // The root itself is replaced.
        fs::write(path("b/sub/e.png"), "12345").unwrap();
        fs::write(path("b/last.tmp"), "1").unwrap();
        symlink("b", path("new")).unwrap();
        fs::rename(path("new"), dir).unwrap();
        thread::sleep(CHECK + UNTOUCHED + 2 * AFTER_CLOSE);
        fs::write(dir.join("sub/f.png"), "123456").unwrap();
        fs::write(path("a/not.png"), "1").unwrap(); // no longer below the root
        thread::sleep(2 * AFTER_CLOSE);
    });
    assert_eq!(
        names,
        [
            "moved/b.png 2",
            "sub/c.png 3",
            "link/d.png 4",
            "sub/e.png 5",
            "sub/f.png 6"
        ]
    );
}

#[test]
fn a_folder_stays_watched_when_a_link_to_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("link")).unwrap();
    let names = reported(dir.path(), |dir| {
        fs::remove_file(dir.join("link")).unwrap();
        thread::sleep(2 * AFTER_CLOSE);
        fs::write(dir.join("a/b.png"), "12").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
    });
    assert_eq!(names, ["a/b.png 2"]);
}

#[test]
fn a_folder_with_several_names_gives_each_picture_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("m/sub")).unwrap();
    for (name, text) in [("m/old.png", "12"), ("m/sub/old.png", "123")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    // Alphabetically before and after it.
    symlink("m", dir.path().join("a")).unwrap();
    symlink("m", dir.path().join("z")).unwrap();
    let names = reported(dir.path(), |dir| {
        fs::write(dir.join("z/b.png"), "1234").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
        symlink("m/sub", dir.join("later")).unwrap();
        thread::sleep(UNTOUCHED + 2 * AFTER_CLOSE);
        fs::write(dir.join("later/c.png"), "12345").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
    });
    assert_eq!(
        names,
        [
            "m/old.png 2",
            "m/sub/old.png 3",
            "m/b.png 4",
            "m/sub/c.png 5"
        ]
    );
}

#[test]
fn a_folder_whose_name_is_removed_is_watched_under_another_name() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    for name in ["incoming", "c"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("c/old.png"), "12").unwrap();
    symlink("../c", path("incoming/a")).unwrap();
    symlink("../c", path("incoming/b")).unwrap();
    let names = reported(&path("incoming"), |dir| {
        fs::remove_file(dir.join("a")).unwrap();
        thread::sleep(UNTOUCHED + 2 * AFTER_CLOSE);
        fs::write(path("c/new.png"), "123").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
        // The folder itself moves in, and the link becomes broken.
        fs::rename(path("c"), dir.join("d")).unwrap();
        thread::sleep(CHECK + UNTOUCHED + 2 * AFTER_CLOSE);
        fs::write(dir.join("d/newer.png"), "1234").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
    });
    assert_eq!(
        names,
        [
            "a/old.png 2",
            "b/old.png 2",
            "b/new.png 3",
            "d/new.png 3",
            "d/old.png 2",
            "d/newer.png 4"
        ]
    );
}

#[test]
fn skipped_files_are_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["@eaDir", "raw", "open"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("@eaDir/a.jpg"), "1").unwrap();
    fs::write(dir.path().join("a.png"), "1").unwrap();
    let selection = Selection::new(&["raw".parse().unwrap()], None);
    let (mut names, mut skipped) = (Vec::new(), Vec::new());
    watch(dir.path(), &selection, |arrival| {
        match arrival {
            Arrival::Picture(found) if found.name == Path::new("a.png") => {
                for name in ["@eaDir/b.jpg", "raw/b.jpg", "open/._b.jpg", "open/b.HEIC"] {
                    fs::write(dir.path().join(name), "1").unwrap();
                    fs::write(dir.path().join(name), "1").unwrap();
                }
                fs::create_dir_all(dir.path().join("open/#recycle")).unwrap();
                fs::write(dir.path().join("open/#recycle/c.jpg"), "1").unwrap();
                fs::write(dir.path().join("empty.png"), "").unwrap();
                thread::sleep(2 * AFTER_CLOSE);
                fs::write(dir.path().join("z.jpg"), "1").unwrap();
            }
            Arrival::Picture(found) => names.push(found.name),
            Arrival::Skipped(why) => skipped.push(why),
            other => panic!("{other:?}"),
        }
        names.is_empty()
    })
    .unwrap();
    assert_eq!(names, [Path::new("z.jpg")]);
    assert_eq!(skipped, ["HEIC"]);
}

#[test]
fn a_limit_has_a_sufficient_value() {
    for (code, limit) in [
        (libc::ENOSPC, Limit::Watches),
        (libc::EMFILE, Limit::Instances),
    ] {
        let error = notify::Error::io(io::Error::from_raw_os_error(code));
        let WatchFailure::Limit(found) = WatchFailure::from(error) else {
            panic!("{code}");
        };
        assert_eq!(found, limit);
        assert!(found.enough() > found.value().unwrap_or(0));
    }
}

#[test]
fn an_unreadable_folder_is_reported_and_does_not_end_the_watch() {
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("lost+found");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&closed).is_ok() {
        return; // root reads everything
    }
    let mut is_reported = false;
    let result = watch(dir.path(), &Selection::default(), |arrival| {
        is_reported = matches!(arrival, Arrival::Unreadable(_));
        false
    });
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    result.unwrap();
    assert!(is_reported);
}

#[test]
fn removing_the_root_ends_the_watch() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.png"), "1").unwrap();
    let removed = watch(&dir, &Selection::default(), |_| {
        fs::remove_dir_all(&dir).unwrap();
        true
    });
    assert!(matches!(removed, Err(WatchError::Gone { .. })));
}
