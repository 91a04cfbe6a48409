//! The picture library: indexing and search.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::common::program::without_rights;
use rexpect::session::spawn_command;
use rusqlite::Connection;
use xc2_edge::tasks::{
    caption::Selection,
    compose::{
        Library,
        library::{INDEX, LibraryError, Search, Survey},
    },
};

/// A library of files that hold their own caption.
fn library(files: &[(&str, &str)]) -> (tempfile::TempDir, Library) {
    let dir = tempfile::tempdir().unwrap();
    for (name, caption) in files {
        write(dir.path(), name, caption);
    }
    let mut library = Library::create(dir.path()).unwrap();
    caption(&mut library);
    (dir, library)
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Captions what is new.
fn caption(library: &mut Library) -> Survey {
    let survey = library.survey(false).unwrap();
    for picture in &survey.uncaptioned {
        let caption = fs::read_to_string(&picture.file).unwrap();
        library.put(picture, &caption, "test").unwrap();
    }
    survey
}

/// Names of the files found, the best first.
fn found(library: &Library, words: &str) -> Vec<String> {
    names(&library.search(words, 4, &[]).unwrap())
}

fn names(search: &Search) -> Vec<String> {
    let name = |hit: &xc2_edge::tasks::compose::library::Hit| {
        hit.file.file_name().unwrap().to_str().unwrap().to_owned()
    };
    search.hits.iter().map(name).collect()
}

const SHAPES: [(&str, &str); 7] = [
    (
        "a.png",
        "A large red circle on the left on a white background.",
    ),
    (
        "b.png",
        "A small red star and a small blue star on a gray background.",
    ),
    ("c.jpg", "A large blue square on a white background."),
    ("d.png", "白色背景上，左边有一个大的红色圆形。"),
    ("e.png", "黑色背景上，中间有一个小的蓝色方形。"),
    ("deep/er/f.WEBP", "A bored cat."),
    ("g.png", "A small blue star on a black background."),
];

#[test]
fn english_and_chinese_words_are_found() {
    let (_dir, library) = library(&SHAPES);
    assert_eq!(found(&library, "red circle")[0], "a.png");
    assert_eq!(found(&library, "STARS"), ["b.png", "g.png"]); // endings and case do not matter
    assert_eq!(found(&library, "red"), ["a.png", "b.png"]); // words, not parts of them
    let together = found(&library, "small blue star");
    assert_eq!(together.len(), 3);
    assert_eq!(together[0], "g.png"); // the words stand together, and nothing else does
    assert_eq!(found(&library, "cat, perhaps?"), ["f.WEBP"]);
    assert_eq!(found(&library, "红色圆形"), ["d.png"]);
    assert_eq!(found(&library, "蓝色"), ["e.png"]);
    assert_eq!(found(&library, "圆"), ["d.png"]); // one character
    assert_eq!(found(&library, "红色 star").len(), 3);
    assert_eq!(found(&library, "AND"), ["b.png"]); // a word like others, no operator
    for nothing in [
        "",
        " \t",
        "\"",
        "*",
        "zebra",
        "'; DROP TABLE words; --",
        "(",
        "a:b",
    ] {
        let any = found(&library, nothing);
        assert!(
            any.is_empty() || nothing == "a:b" || nothing.contains("TABLE"),
            "{nothing}: {any:?}"
        );
    }
    let scores: Vec<_> = library
        .search("small blue star", 9, &[])
        .unwrap()
        .hits
        .iter()
        .map(|h| h.score)
        .collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

#[test]
fn ties_are_sorted_by_name_and_the_limit_holds() {
    let same = ["5.png", "3.png", "1.png", "4.png", "2.png"].map(|name| (name, "A red star."));
    let (dir, library) = library(&same);
    // Copies of one file: found by their contents, captioned once each all the same.
    assert_eq!(
        found(&library, "star"),
        ["1.png", "2.png", "3.png", "4.png"]
    );
    let excluded = [dir.path().join("1.png"), dir.path().join("3.png")];
    let rest = library.search("star", 2, &excluded).unwrap();
    assert_eq!(names(&rest), ["2.png", "4.png"]);
}

#[test]
fn a_deleted_file_is_reported_and_then_removed_from_the_index() {
    let (dir, mut library) = library(&SHAPES);
    fs::remove_file(dir.path().join("a.png")).unwrap();
    let search = library.search("red circle", 4, &[]).unwrap();
    assert_eq!(search.missing, [dir.path().join("a.png")]);
    assert!(!names(&search).contains(&"a.png".to_owned()));
    let survey = caption(&mut library);
    assert_eq!(
        (survey.removed, survey.known, survey.uncaptioned.len()),
        (1, 6, 0)
    );
    assert!(
        library
            .search("red circle", 4, &[])
            .unwrap()
            .missing
            .is_empty()
    );
}

#[test]
fn only_new_or_changed_pictures_are_captioned() {
    let (dir, mut library) = library(&SHAPES);
    assert_eq!(library.len().unwrap(), 7);
    let survey = caption(&mut library);
    assert_eq!((survey.uncaptioned.len(), survey.known), (0, 7));

    write(dir.path(), "new.png", "A green heart.");
    write(dir.path(), "c.jpg", "A large cyan ring instead.");
    fs::rename(dir.path().join("b.png"), dir.path().join("moved.png")).unwrap();
    for ignored in [".hidden.png", ".hidden/x.png", "notes.txt"] {
        write(dir.path(), ignored, "A green heart.");
    }
    let survey = caption(&mut library);
    let uncaptioned: Vec<_> = survey
        .uncaptioned
        .iter()
        .map(|f| f.file.file_name().unwrap())
        .collect();
    assert_eq!(uncaptioned, ["c.jpg", "new.png"]);
    assert_eq!((survey.moved, survey.removed), (1, 1));
    assert_eq!(found(&library, "green"), ["new.png"]);
    assert_eq!(found(&library, "square"), Vec::<String>::new()); // the old caption is gone
    assert_eq!(found(&library, "gray"), ["moved.png"]);

    assert_eq!(library.survey(true).unwrap().uncaptioned.len(), 8);
}

#[test]
fn an_interrupted_run_resumes() {
    let dir = tempfile::tempdir().unwrap();
    SHAPES
        .iter()
        .for_each(|(name, text)| write(dir.path(), name, text));
    let mut library = Library::create(dir.path()).unwrap();
    let survey = library.survey(false).unwrap();
    library.put(&survey.uncaptioned[0], "one", "test").unwrap();
    drop(library);
    let mut library = Library::create(dir.path()).unwrap();
    assert_eq!(
        library.survey(false).unwrap().uncaptioned,
        survey.uncaptioned[1..]
    );
}

#[test]
fn a_partial_transaction_of_a_killed_program_is_rolled_back() {
    let (dir, library) = library(&SHAPES);
    drop(library);
    let files = [INDEX.to_owned(), format!("{INDEX}-journal")].map(|name| dir.path().join(name));
    // A change that is too large for the memory allowed goes to the file before it is complete.
    let index = Connection::open(&files[0]).unwrap();
    let change =
        "PRAGMA cache_size = 1; BEGIN; UPDATE picture SET caption = hex(zeroblob(100000));";
    index.execute_batch(change).unwrap();
    let killed = files.each_ref().map(|file| fs::read(file).unwrap());
    drop(index);
    for (file, bytes) in files.iter().zip(&killed) {
        fs::write(file, bytes).unwrap();
    }
    let library = Library::open(dir.path()).unwrap();
    assert_eq!(library.len().unwrap(), SHAPES.len());
    let hits = library.search("square", 4, &[]).unwrap().hits;
    assert_eq!(
        hits[0].caption,
        "A large blue square on a white background."
    );
    assert!(killed[1].len() > 4096 && !files[1].exists());
}

#[test]
fn a_directory_without_an_index_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Library::open(dir.path()),
        Err(LibraryError::NoIndex { .. })
    ));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(
        Library::create(&nowhere),
        Err(LibraryError::NoDirectory { .. })
    ));
    let empty = Library::create(dir.path()).unwrap();
    assert!(empty.is_empty().unwrap());
    assert_eq!(found(&empty, "anything"), Vec::<String>::new());
    drop(empty);

    fs::write(
        dir.path().join(INDEX),
        "no database, but long enough to look at",
    )
    .unwrap();
    let message = Library::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains(INDEX), "{message}");
    fs::write(dir.path().join(INDEX), "").unwrap(); // as a crash in the first moment leaves it
    assert!(matches!(
        Library::open(dir.path()),
        Err(LibraryError::Version { found: 0, .. })
    ));
    Library::create(dir.path()).unwrap();
    Library::open(dir.path()).unwrap();
}

#[test]
fn captions_of_pictures_in_a_directory_that_cannot_be_read_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.png", "A red star.");
    write(dir.path(), "sub/b.png", "A blue star.");
    write(dir.path(), "c.heic", "A star.");
    let mut library = Library::create(dir.path()).unwrap();
    caption(&mut library);
    // A link to itself cannot be read by anybody.
    fs::rename(dir.path().join("sub"), dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("sub", dir.path().join("sub")).unwrap();
    fs::remove_dir_all(dir.path().join("elsewhere")).unwrap();
    let survey = library.survey(false).unwrap();
    assert_eq!(
        (
            survey.known,
            survey.removed,
            survey.unreadable_folders.len()
        ),
        (1, 0, 1)
    );
    assert_eq!(survey.skipped.to_string(), "1 file left out: HEIC");
    assert_eq!(library.len().unwrap(), 2);
    // Left out, it is no longer part of the library.
    let selection = Selection::new(&["sub".parse().unwrap()], None);
    let survey = library.survey_of(&selection, false).unwrap();
    assert_eq!(
        (
            survey.known,
            survey.removed,
            survey.unreadable_folders.len()
        ),
        (1, 1, 0)
    );
}

#[test]
fn unreadable_pictures_are_not_reported_as_deleted_and_give_status_3() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.png", "A red star.");
    write(dir.path(), "sub/b.png", "A blue star.");
    let mut library = Library::create(dir.path()).unwrap();
    caption(&mut library);
    drop(library);
    let run = |command: &str, more: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
        program.arg(command).arg(dir.path()).args(more);
        let output = program.output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), message)
    };
    let index = || run("index", &["-m", "no model is needed"]);
    assert_eq!(index().0, Some(0));
    // A link to itself cannot be read by anybody.
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    std::os::unix::fs::symlink("sub", dir.path().join("sub")).unwrap();
    let (status, message) = run("search", &["star"]);
    assert_eq!(status, Some(0), "{message}");
    assert!(
        message.contains("sub/b.png: cannot be read: ") && message.contains("caption is kept"),
        "{message}"
    );
    let (status, message) = index();
    assert_eq!(status, Some(3), "{message}");
    assert!(
        message.contains("warning: ") && message.contains("sub: "),
        "{message}"
    );
    let (status, message) = run("search", &["blue"]);
    assert_eq!(status, Some(1));
    assert!(!message.contains("has any of these words"), "{message}");
    // Excluded, it does not count.
    let excluded = run("index", &["-m", "none", "--exclude", "sub"]);
    assert_eq!(excluded.0, Some(0), "{}", excluded.1);
    fs::remove_file(dir.path().join("a.png")).unwrap();
    let (_, message) = run("search", &["red"]);
    assert!(
        message.contains("a.png: not found; `xc2-edge index`"),
        "{message}"
    );
}

#[test]
fn an_index_may_be_elsewhere_and_its_directory_may_move() {
    let (dir, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let index = away.path().join("photos.sqlite");
    write(&old, "sub/a.png", "A red star.");
    let mut library = Library::create_at(&old, &index).unwrap();
    caption(&mut library);
    drop(library);
    assert_eq!(fs::read_dir(&old).unwrap().count(), 1);
    fs::rename(&old, &new).unwrap();
    let library = Library::open_at(&new, &index).unwrap();
    let hits = library.search("star", 4, &[]).unwrap().hits;
    assert_eq!(hits[0].file, new.join("sub/a.png"));
    assert!(matches!(
        Library::open(&new),
        Err(LibraryError::NoIndex { .. })
    ));
    drop(library);

    // Another directory, or one in which nothing is mounted: nothing is forgotten.
    fs::create_dir(&old).unwrap();
    for name in [None, Some("b.png")] {
        if let Some(name) = name {
            write(&old, name, "A cat.");
        }
        let mut library = Library::create_at(&old, &index).unwrap();
        let refused = library.survey(false).unwrap_err();
        assert!(
            matches!(refused, LibraryError::OtherFiles { n_known: 1, .. }),
            "{refused}"
        );
        assert_eq!(library.len().unwrap(), 1);
    }
    let search = Command::new(env!("CARGO_BIN_EXE_xc2-edge"))
        .arg("search")
        .args([&new, Path::new("star"), Path::new("--index"), &index])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(search.stdout)
            .unwrap()
            .contains("A red star.")
    );
}

#[test]
fn a_file_that_is_not_an_index_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.sqlite");
    let database = Connection::open(&other).unwrap();
    let script = "CREATE TABLE tags (name); PRAGMA user_version = 1;";
    database.execute_batch(script).unwrap();
    drop(database);
    let photo = dir.path().join("photo.png");
    fs::write(&photo, "no database, but long enough to look at").unwrap();
    for file in [&other, &photo] {
        let before = fs::read(file).unwrap();
        for opened in [Library::create_at, Library::open_at] {
            let error = opened(dir.path(), file).unwrap_err();
            assert!(matches!(error, LibraryError::NotAnIndex { .. }), "{error}");
        }
        assert!(fs::read(file).unwrap() == before);
    }
}

#[test]
fn a_read_only_directory_is_named_as_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    write(&photos, "a.png", "A red star.");
    fs::set_permissions(&photos, fs::Permissions::from_mode(0o555)).unwrap();
    let Some(mut command) = without_rights(dir.path()) else {
        return;
    };
    command.args(["index", "photos", "-m", "gone.gguf"]);
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    for told in [
        "photos: is read-only for this user, the index cannot be written: permission denied",
        "hint: use `--index FILE` to put the index elsewhere",
    ] {
        assert!(message.contains(told), "{message}");
    }
    let Some(mut command) = without_rights(dir.path()) else {
        return;
    };
    command.args(["index", "photos", "-m", "gone.gguf", "--index", "a.sqlite"]);
    let message = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(message.contains("gone.gguf"), "{message}"); // the next thing that is wrong
    fs::set_permissions(&photos, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn pictures_are_shown_in_a_terminal_that_answers_no_query() {
    let (dir, mut library) = library(&[]);
    let file = dir.path().join("red.png");
    let red = image::RgbImage::from_pixel(8, 8, image::Rgb([255, 0, 0]));
    red.save(&file).unwrap();
    let survey = library.survey(false).unwrap();
    library
        .put(&survey.uncaptioned[0], "all red", "test")
        .unwrap();

    let mut search = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
    search.arg("search").arg(dir.path()).arg("red");
    search
        .env("TERM", "xterm-256color")
        .env("COLORTERM", "truecolor");
    for name in ["KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"] {
        search.env_remove(name);
    }
    let mut terminal = spawn_command(search, Some(60_000)).unwrap(); // only a test that hangs waits
    terminal.exp_string("all red").unwrap();
    terminal.exp_string("255;0;0m").unwrap();
    terminal.exp_eof().unwrap();
}
