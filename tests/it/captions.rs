//! `xc2-edge caption`: folders, lists, records and errors.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use crate::common::{
    captions::{assert_status, caption, captions, draw, feed, lines, model, records, run, scratch},
    program::without_rights,
};
use serde_json::json;

#[test]
fn a_folder_is_captioned_and_a_second_run_has_no_work() {
    let dir = scratch("folder");
    let truth = draw(&dir, "300..304");
    let output = run(&dir, &["pictures", "-o", "captions.jsonl"]);
    let message = assert_status(&output, 0);
    assert!(message.contains("4 captioned"), "{message}");
    let mut first = records(&dir.join("captions.jsonl"));
    first.sort_by_key(|record| record["path"].to_string()); // captions finish in any order
    assert_eq!(captions(&first), truth);
    assert_eq!(first[0]["path"], "pictures/scene-00300.png");
    assert_eq!(
        (&first[0]["width"], &first[0]["stop"]),
        (&json!(336), &json!("stop"))
    );
    assert_eq!(first[0]["model"], "xc2-scenes-Q4K.gguf");

    // It does not load a model.
    let before = fs::read(dir.join("captions.jsonl")).unwrap();
    let message = assert_status(&run(&dir, &["pictures", "-o", "captions.jsonl"]), 0);
    assert!(
        message.contains(
            "0 captioned, 4 skipped\n4 of those skipped already have a caption in captions.jsonl"
        ),
        "{message}"
    );
    assert!(fs::read(dir.join("captions.jsonl")).unwrap() == before);

    // A changed picture and a new one.
    fs::copy(
        dir.join("pictures/scene-00301.png"),
        dir.join("pictures/scene-00300.png"),
    )
    .unwrap();
    fs::copy(
        dir.join("pictures/scene-00302.png"),
        dir.join("pictures/new.png"),
    )
    .unwrap();
    let message = assert_status(&run(&dir, &["pictures", "-o", "captions.jsonl"]), 0);
    assert!(
        message.contains("2 captioned") && message.contains("3 skipped"),
        "{message}"
    );
    let now = captions(&records(&dir.join("captions.jsonl")));
    assert_eq!(now["scene-00300.png"], truth["scene-00301.png"]);
    assert_eq!(now["new.png"], truth["scene-00302.png"]);
    assert_eq!(now.len(), 5);
}

#[test]
fn failures_are_recorded_and_retried_on_request() {
    let dir = scratch("failures");
    draw(&dir, "310..312");
    let broken = dir.join("pictures/broken.png");
    let whole = fs::read(dir.join("pictures/scene-00310.png")).unwrap();
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    let args = ["pictures", "-o", "captions.csv"];
    let message = assert_status(&run(&dir, &args), 3);
    assert!(
        message.contains("warning: pictures/broken.png: "),
        "{message}"
    );
    assert!(
        message.contains("2 captioned") && message.contains("1 failed"),
        "{message}"
    );
    let table = fs::read_to_string(dir.join("captions.csv")).unwrap();
    assert!(table.starts_with("path,caption,error,size,"), "{table}");
    assert_eq!(table.lines().count(), 4);
    assert!(
        table.contains("pictures/broken.png,,the PNG data end before"),
        "{table}"
    );

    let message = assert_status(&run(&dir, &args), 3);
    assert!(message.contains("--retry-failed"), "{message}");
    let retry = ["pictures", "-o", "captions.csv", "--retry-failed"];
    let message = assert_status(&run(&dir, &retry), 3);
    assert!(
        message.contains("0 captioned, 1 failed, 2 skipped"),
        "{message}"
    );
    // A repaired picture has changed, so it is captioned without the option.
    fs::write(&broken, &whole).unwrap();
    assert_status(&run(&dir, &args), 0);
    let table = fs::read_to_string(dir.join("captions.csv")).unwrap();
    assert_eq!(
        (table.lines().count(), table.matches("broken.png").count()),
        (4, 1),
        "{table}"
    );
}

#[test]
fn captions_are_written_to_texts_and_copies() {
    let dir = scratch("sidecars");
    let truth = draw(&dir, "320..322");
    fs::write(dir.join("pictures/scene-00321.txt"), "by hand").unwrap();
    let template = ["pictures", "--txt", "--template", "sks, {caption}"];
    let output = run(&dir, &template);
    let message = assert_status(&output, 0);
    assert!(
        message.contains("1 captioned") && output.stdout.is_empty(),
        "{message}"
    );
    let text = |name: &str| fs::read_to_string(dir.join("pictures").join(name)).unwrap();
    assert_eq!(
        text("scene-00320.txt"),
        format!("sks, {}\n", truth["scene-00320.png"])
    );
    assert_eq!(text("scene-00321.txt"), "by hand");
    let message = assert_status(&run(&dir, &template), 0);
    let told = "0 captioned, 2 skipped\n2 of those skipped already have a text file";
    assert!(message.contains(told), "{message}");

    // With records, copies can be made later from the known captions.
    assert_status(&run(&dir, &["pictures", "-o", "c.jsonl"]), 0);
    let embed = ["pictures", "-o", "c.jsonl", "--embed", "out"];
    let message = assert_status(&run(&dir, &embed), 0);
    let told = "0 captioned, 2 skipped\n2 of those skipped had a caption in c.jsonl; their missing";
    assert!(message.contains(told), "{message}");
    for (name, caption) in &truth {
        let copy = fs::read(dir.join("out").join(name)).unwrap();
        assert!(String::from_utf8_lossy(&copy).contains(&format!(">{caption}<")));
    }
    let names: Vec<_> = fs::read_dir(dir.join("pictures")).unwrap().collect();
    assert_eq!(names.len(), 5); // two pictures, two texts and the truth: no temporary file
}

#[test]
fn lists_patterns_and_shares_select_pictures() {
    let dir = scratch("sources");
    let truth = draw(&dir, "330..336");
    let output = run(&dir, &["pictures/*33[01].png", "-q"]);
    assert_status(&output, 0);
    assert_eq!(
        captions(&lines(&String::from_utf8(output.stdout).unwrap())).len(),
        2
    );

    let list = b"pictures/scene-00332.png\npictures/gone.png\n";
    let output = feed(caption(&dir, &["-", "-o", "list.jsonl"]), list);
    assert_status(&output, 3);
    let from_list = records(&dir.join("list.jsonl"));
    assert_eq!(from_list.len(), 2);
    assert!(from_list.iter().any(|r| {
        r["error"]
            .as_str()
            .is_some_and(|e| e.contains("No such file"))
    }));

    let mut all = Vec::new();
    for shard in ["1/2", "2/2"] {
        let output = run(&dir, &["pictures", "--shard", shard]);
        assert_status(&output, 0);
        all.extend(lines(&String::from_utf8(output.stdout).unwrap()));
    }
    assert_eq!(captions(&all), truth);
}

#[test]
fn records_keep_their_order_and_fields() {
    let dir = scratch("pipe");
    let truth = draw(&dir, "340..344");
    let path = |seed: usize| format!("pictures/scene-00{seed}.png");
    let mut input = String::new();
    for seed in [342, 340, 343, 341] {
        input += &json!({"id": seed, "path": path(seed), "tags": ["a", {"b": null}]}).to_string();
        input += "\n";
    }
    let numbers = r#""n":12345678901234567890123,"x":1.0,"y":1e5,"z":0.1000"#;
    input += &format!("{{\"path\":\"gone.png\",\"caption\":\"old\",{numbers}}}\nnot JSON\n\n");
    input += &json!({"path": path(340), "prompt": "How many objects are there?"}).to_string();
    for parallel in ["1", "3"] {
        let output = feed(
            caption(&dir, &["--jsonl-in", "-", "--parallel", parallel]),
            input.as_bytes(),
        );
        assert_status(&output, 0);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(numbers), "{text}");
        let answers = lines(&text);
        let ids: Vec<_> = answers.iter().map(|a| a["id"].as_u64()).collect();
        assert_eq!(
            ids,
            [Some(342), Some(340), Some(343), Some(341), None, None, None]
        );
        for answer in &answers[..4] {
            assert_eq!(answer["tags"], json!(["a", {"b": null}]));
            let name = format!("scene-00{}.png", answer["id"]);
            assert_eq!(answer["caption"], truth[&name]);
        }
        assert!(answers[4].get("caption").is_none() && answers[4]["error"].is_string());
        assert_eq!(answers[5]["line"], "not JSON");
        assert_ne!(answers[6]["caption"], answers[1]["caption"]);
    }
}

#[test]
fn parallel_captions_equal_captions_one_at_a_time() {
    let dir = scratch("parallel");
    let truth = draw(&dir, "350..358");
    for parallel in ["1", "4"] {
        let file = format!("{parallel}.jsonl");
        assert_status(
            &run(&dir, &["pictures", "-o", &file, "--parallel", parallel]),
            0,
        );
        assert_eq!(captions(&records(&dir.join(file))), truth);
    }
}

#[test]
fn impossible_requests_fail_before_a_model_is_loaded() {
    let dir = scratch("refused");
    draw(&dir, "370..371");
    fs::copy(
        dir.join("pictures/scene-00370.png"),
        dir.join("pictures/scene-00370.jpg"),
    )
    .unwrap();
    fs::write(dir.join("notes.txt"), "milk, eggs").unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    for (args, status, naming) in [
        (vec!["gone.png"], 1, "gone.png: No such file"),
        (vec!["*.gif"], 1, "no file matches"),
        (vec!["empty"], 1, "no pictures found"),
        (vec!["pictures", "--txt"], 1, "would share the sidecar"),
        (
            vec!["pictures", "--embed", "pictures"],
            1,
            "would replace the picture itself\n\nhint: give another directory",
        ),
        (
            vec!["notes.txt", "--txt"],
            1,
            "would replace the picture itself\n\nhint: do not list text files",
        ),
        (vec!["pictures", "-o", "notes.txt"], 1, "expected a record"),
        (
            vec!["pictures", "-o", "pictures"],
            1,
            "found a directory\n\nhint: name a file: `-o pictures/captions.jsonl`",
        ),
        (
            vec!["--watch", "gone"],
            1,
            "--watch gone: expected a folder, found nothing",
        ),
        (
            vec!["--watch", "notes.txt"],
            1,
            "expected a folder, found a file",
        ),
        (
            vec!["pictures", "-o", "no/dir/c.jsonl"],
            1,
            "no/dir/c.jsonl: cannot be written",
        ),
        (vec![], 2, "required"),
        (
            vec!["pictures", "--watch", "pictures"],
            2,
            "cannot be used with",
        ),
        (
            vec!["pictures", "--template", "no place"],
            2,
            "expected `{caption}` once",
        ),
        (vec!["pictures", "--shard", "3/2"], 2, "expected I/N"),
        (
            vec!["pictures", "--min-change", "2"],
            2,
            "cannot be used with",
        ),
    ] {
        let output = run(&dir, &args);
        let message = assert_status(&output, status);
        assert!(message.contains(naming), "{args:?}: {message}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(
        fs::read_to_string(dir.join("notes.txt")).unwrap(),
        "milk, eggs"
    );

    assert_status(
        &run(&dir, &["pictures/scene-00370.png", "-o", "c.jsonl"]),
        0,
    );
    let message = assert_status(&run(&dir, &["pictures", "-o", "c.jsonl", "-p", "Why?"]), 1);
    assert!(
        message.contains("another prompt") && message.contains("hint: "),
        "{message}"
    );
}

#[test]
fn an_unreadable_folder_is_reported_and_the_rest_is_captioned() {
    let dir = scratch("unreadable");
    let truth = draw(&dir, "400..402");
    let closed = dir.join("pictures/lost+found");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    symlink("self", dir.join("pictures/self")).unwrap(); // unreadable for every user
    let Some(mut command) = without_rights(&dir) else {
        return;
    };
    command
        .args(["caption", "-o", "c.jsonl", "-m"])
        .arg(model());
    let output = command.arg("pictures").output().unwrap();
    let message = assert_status(&output, 3);
    assert!(
        message.contains("warning: pictures/lost+found: Permission denied"),
        "{message}"
    );
    assert!(message.contains("warning: pictures/self: "), "{message}");
    assert!(
        message.contains("2 captioned") && message.contains("2 folders not readable"),
        "{message}"
    );
    assert_eq!(captions(&records(&dir.join("c.jsonl"))), truth);

    // No other picture.
    let Some(mut command) = without_rights(&dir) else {
        return;
    };
    command.args(["caption", "pictures/lost+found", "-m"]);
    let message = assert_status(&command.arg(model()).output().unwrap(), 1);
    assert!(
        message.contains("no pictures found") && message.contains("Permission denied"),
        "{message}"
    );
    // Not an error if excluded.
    let args = [
        "pictures",
        "-o",
        "c.jsonl",
        "--exclude",
        "lost+found",
        "--exclude",
        "self",
    ];
    let message = assert_status(&run(&dir, &args), 0);
    assert!(!message.contains("not readable"), "{message}");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn pictures_of_a_folder_are_captioned_or_counted_and_junk_is_ignored() {
    let dir = scratch("left-out");
    let truth = draw(&dir, "405..407");
    let (first, second) = (
        dir.join("pictures/scene-00405.png"),
        dir.join("pictures/scene-00406.png"),
    );
    for name in [
        "a.JFIF",
        "b.jpe",
        "c.HEIC",
        "d.heic",
        "e.heif",
        "f.avif",
        "notes.txt",
        "film.mp4",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/a.jpg",
        "$RECYCLE.BIN/a.jpg",
        ".thumbnails/a.jpg",
        "._a.jpg",
        "raw/a.jpg",
        "trip [1]/b.PNG",
        "trip 1/c.png",
    ] {
        let path = dir.join("album").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&first, path).unwrap();
    }
    fs::copy(&second, dir.join("album/raw/z.gif")).unwrap();
    let args = [
        "album",
        "-o",
        "c.jsonl",
        "--exclude",
        "raw/",
        "--exclude",
        "trip [1]",
    ];
    let message = assert_status(&run(&dir, &args), 0);
    assert!(message.contains("3 captioned"), "{message}");
    assert!(
        message.contains("4 files left out: 3 HEIC, 1 AVIF"),
        "{message}"
    );
    let names: Vec<_> = captions(&records(&dir.join("c.jsonl")))
        .into_keys()
        .collect();
    assert_eq!(names, ["a.JFIF", "b.jpe", "c.png"]);

    // Folders named on the command line are read: one with brackets, and one that is ignored inside others.
    let output = run(&dir, &["album/trip [1]", "album/raw/*.gif", "-q"]);
    assert_status(&output, 0);
    let said = captions(&lines(&String::from_utf8(output.stdout).unwrap()));
    assert_eq!(said["b.PNG"], truth["scene-00405.png"]);
    assert_eq!(said["z.gif"], truth["scene-00406.png"]);
    let output = run(&dir, &["album/#recycle", "-q"]);
    assert_status(&output, 0);
    let message = assert_status(&run(&dir, &["album", "--exclude", "*"]), 1);
    assert!(message.contains("no pictures found"), "{message}");
}

#[test]
fn two_pictures_with_one_text_do_not_stop_the_others() {
    let dir = scratch("clash");
    let truth = draw(&dir, "410..412");
    let pictures = dir.join("pictures");
    fs::copy(
        pictures.join("scene-00410.png"),
        pictures.join("scene-00410.jpg"),
    )
    .unwrap();
    let message = assert_status(&run(&dir, &["pictures", "--txt", "-o", "c.jsonl"]), 3);
    assert_eq!(
        message.matches("would share the sidecar").count(),
        2,
        "{message}"
    );
    assert!(
        message.contains("1 captioned") && message.contains("2 failed"),
        "{message}"
    );
    let text = fs::read_to_string(pictures.join("scene-00411.txt")).unwrap();
    assert_eq!(text.trim(), truth["scene-00411.png"]);
    assert!(!pictures.join("scene-00410.txt").exists());
    // With another name it is captioned without further options.
    fs::rename(pictures.join("scene-00410.jpg"), pictures.join("other.jpg")).unwrap();
    let message = assert_status(&run(&dir, &["pictures", "--txt", "-o", "c.jsonl"]), 0);
    assert!(message.contains("2 captioned"), "{message}");

    // Copies from two folders.
    fs::create_dir(dir.join("more")).unwrap();
    for name in ["scene-00411.png", "third.png"] {
        fs::copy(
            pictures.join("scene-00411.png"),
            dir.join("more").join(name),
        )
        .unwrap();
    }
    let args = ["pictures", "more", "--embed", "out"];
    let message = assert_status(&run(&dir, &args), 3);
    assert!(
        message.contains("3 captioned") && message.contains("2 failed"),
        "{message}"
    );
    assert!(dir.join("out/third.png").exists() && !dir.join("out/scene-00411.png").exists());
}
