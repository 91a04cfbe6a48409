use std::{
    fs::File,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;

/// What is taken while `act` happens, up to the file `last.png`.
fn taken(dir: &Path, act: impl FnOnce(&Path) + Send) -> Vec<String> {
    let mut names = Vec::new();
    thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        scope.spawn(move || {
            is_ready.recv().unwrap();
            act(dir);
            fs::rename(dir.join("last.tmp"), dir.join("last.png")).unwrap();
        });
        fs::write(dir.join("last.tmp"), "1").unwrap();
        fs::write(dir.join("first.png"), "1").unwrap(); // there before; says that the watch is on
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
fn a_file_is_taken_when_it_is_closed_however_slowly_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let names = taken(dir.path(), |dir| {
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
fn files_moved_into_place_and_folders_with_what_is_in_them_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let names = taken(dir.path(), |dir| {
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
fn a_folder_that_is_replaced_is_watched_anew() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    for name in ["a", "b", "a/sub", "b/sub", "c"] {
        fs::create_dir(path(name)).unwrap();
    }
    symlink("a", path("incoming")).unwrap();
    let names = taken(&path("incoming"), |dir| {
        // Moved away and back under another name, and another one in its place.
        fs::rename(dir.join("sub"), dir.join("moved")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        thread::sleep(UNTOUCHED);
        fs::write(dir.join("moved/b.png"), "12").unwrap();
        fs::write(dir.join("sub/c.png"), "123").unwrap();
        // A link to a folder elsewhere, and then to another one.
        symlink("../c", dir.join("link")).unwrap();
        thread::sleep(UNTOUCHED);
        fs::write(path("c/d.png"), "1234").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
        // The folder itself is another one.
        fs::write(path("b/sub/e.png"), "12345").unwrap();
        fs::write(path("b/last.tmp"), "1").unwrap();
        symlink("b", path("new")).unwrap();
        fs::rename(path("new"), dir).unwrap();
        thread::sleep(CHECK + UNTOUCHED + 2 * AFTER_CLOSE);
        fs::write(dir.join("sub/f.png"), "123456").unwrap();
        fs::write(path("a/not.png"), "1").unwrap(); // no longer part of it
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
    let names = taken(dir.path(), |dir| {
        fs::remove_file(dir.join("link")).unwrap();
        thread::sleep(2 * AFTER_CLOSE);
        fs::write(dir.join("a/b.png"), "12").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
    });
    assert_eq!(names, ["a/b.png 2"]);
}

#[test]
fn a_folder_of_several_names_gives_each_picture_once_under_the_one_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("m/sub")).unwrap();
    for (name, text) in [("m/old.png", "12"), ("m/sub/old.png", "123")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    // Before it and behind it by name.
    symlink("m", dir.path().join("a")).unwrap();
    symlink("m", dir.path().join("z")).unwrap();
    let names = taken(dir.path(), |dir| {
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
fn a_folder_whose_name_is_gone_is_watched_on_under_another() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    for name in ["incoming", "c"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("c/old.png"), "12").unwrap();
    symlink("../c", path("incoming/a")).unwrap();
    symlink("../c", path("incoming/b")).unwrap();
    let names = taken(&path("incoming"), |dir| {
        fs::remove_file(dir.join("a")).unwrap();
        thread::sleep(UNTOUCHED + 2 * AFTER_CLOSE);
        fs::write(path("c/new.png"), "123").unwrap();
        thread::sleep(2 * AFTER_CLOSE);
        // The folder itself comes in, and leaves the link behind.
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
fn what_is_left_out_stays_out_and_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["@eaDir", "raw", "open"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("@eaDir/a.jpg"), "1").unwrap();
    fs::write(dir.path().join("a.png"), "1").unwrap();
    let selection = Selection::new(&["raw".parse().unwrap()], None);
    let (mut names, mut left_out) = (Vec::new(), Vec::new());
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
            Arrival::LeftOut(why) => left_out.push(why),
            other => panic!("{other:?}"),
        }
        names.is_empty()
    })
    .unwrap();
    assert_eq!(names, [Path::new("z.jpg")]);
    assert_eq!(left_out, ["HEIC"]);
}

#[test]
fn a_limit_is_named_with_a_value_that_is_enough() {
    for (code, limit) in [
        (libc::ENOSPC, Limit::Watches),
        (libc::EMFILE, Limit::Instances),
    ] {
        let error = notify::Error::io(io::Error::from_raw_os_error(code));
        let Refusal::Limit(found) = Refusal::from(error) else {
            panic!("{code}");
        };
        assert_eq!(found, limit);
        assert!(found.enough() > found.value().unwrap_or(0));
    }
}

#[test]
fn a_folder_that_cannot_be_read_is_told_and_ends_no_watch() {
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("lost+found");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&closed).is_ok() {
        return; // root reads everything
    }
    let mut is_told = false;
    let result = watch(dir.path(), &Selection::default(), |arrival| {
        is_told = matches!(arrival, Arrival::Unreadable(_));
        false
    });
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    result.unwrap();
    assert!(is_told);
}

#[test]
fn a_folder_that_is_removed_ends_the_watch() {
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
