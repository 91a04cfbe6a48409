//! `xc2-edge caption` as a person, a script and a camera use it.

mod common;

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::captions::{
    Killed, assert_status, caption, captions, draw, lines, records, run, scratch,
};
use serde_json::json;

fn feed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

#[test]
fn a_folder_gets_its_captions_and_a_second_run_has_nothing_to_do() {
    let dir = scratch("folder");
    let truth = draw(&dir, "300..304");
    let output = run(&dir, &["pictures", "-o", "captions.jsonl"]);
    let message = assert_status(&output, 0);
    assert!(message.contains("4 captioned"), "{message}");
    let mut first = records(&dir.join("captions.jsonl"));
    first.sort_by_key(|record| record["path"].to_string()); // several are made at a time
    assert_eq!(captions(&first), truth);
    assert_eq!(first[0]["path"], "pictures/scene-00300.png");
    assert_eq!(
        (&first[0]["width"], &first[0]["stop"]),
        (&json!(336), &json!("stop"))
    );
    assert_eq!(first[0]["model"], "xc2-scenes-Q4K.gguf");

    // It does not even load a model.
    let before = fs::read(dir.join("captions.jsonl")).unwrap();
    let message = assert_status(&run(&dir, &["pictures", "-o", "captions.jsonl"]), 0);
    assert!(
        message.contains(
            "0 captioned, 4 skipped\n4 of those skipped have their caption in captions.jsonl"
        ),
        "{message}"
    );
    assert!(fs::read(dir.join("captions.jsonl")).unwrap() == before);

    // A picture that has changed, and one that is new.
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
fn failures_are_recorded_and_tried_again_when_asked() {
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
    // Mended, it has changed, so that it is tried in any case.
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
fn texts_and_copies_are_made_of_the_captions() {
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
    let told = "0 captioned, 2 skipped\n2 of those skipped have a text file";
    assert!(message.contains(told), "{message}");

    // With records, copies can be made afterwards, of what is known already.
    assert_status(&run(&dir, &["pictures", "-o", "c.jsonl"]), 0);
    let embed = ["pictures", "-o", "c.jsonl", "--embed", "out"];
    let message = assert_status(&run(&dir, &embed), 0);
    let told = "0 captioned, 2 skipped\n2 of those skipped had their caption in c.jsonl, of which";
    assert!(message.contains(told), "{message}");
    for (name, caption) in &truth {
        let copy = fs::read(dir.join("out").join(name)).unwrap();
        assert!(String::from_utf8_lossy(&copy).contains(&format!(">{caption}<")));
    }
    let names: Vec<_> = fs::read_dir(dir.join("pictures")).unwrap().collect();
    assert_eq!(names.len(), 5); // two pictures, two texts and the truth: nothing was left behind
}

#[test]
fn lists_patterns_and_shares_say_which_pictures() {
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
fn records_come_back_in_order_with_their_fields() {
    let dir = scratch("pipe");
    let truth = draw(&dir, "340..344");
    let path = |seed: usize| format!("pictures/scene-00{seed}.png");
    let mut input = String::new();
    for seed in [342, 340, 343, 341] {
        input += &json!({"id": seed, "path": path(seed), "tags": ["a", {"b": null}]}).to_string();
        input += "\n";
    }
    input += "{\"path\":\"gone.png\",\"caption\":\"old\"}\nnot JSON\n\n";
    input += &json!({"path": path(340), "prompt": "How many objects are there?"}).to_string();
    for parallel in ["1", "3"] {
        let output = feed(
            caption(&dir, &["--jsonl-in", "-", "--parallel", parallel]),
            input.as_bytes(),
        );
        assert_status(&output, 0);
        let answers = lines(&String::from_utf8(output.stdout).unwrap());
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
fn several_at_a_time_say_what_one_at_a_time_says() {
    let dir = scratch("parallel");
    let truth = draw(&dir, "350..362");
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
fn what_cannot_be_done_is_told_before_a_model_is_loaded() {
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
        (vec!["*.gif"], 1, "no file has such a name"),
        (vec!["empty"], 1, "no pictures found"),
        (vec!["pictures", "--txt"], 1, "would both be described by"),
        (
            vec!["pictures", "--embed", "pictures"],
            1,
            "would replace the file itself\n\nhint: give another directory",
        ),
        (
            vec!["notes.txt", "--txt"],
            1,
            "would replace the file itself\n\nhint: leave text files out",
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
fn a_watched_folder_gets_captions_of_what_arrives() {
    let dir = scratch("watched");
    let truth = draw(&dir, "380..384");
    let incoming = dir.join("incoming");
    fs::create_dir(&incoming).unwrap();
    let drawn = |seed: usize| dir.join(format!("pictures/scene-00{seed}.png"));
    fs::copy(drawn(380), incoming.join("scene-00380.png")).unwrap();
    let args = ["--watch", "incoming", "-o", "c.jsonl"];
    let watching = Killed(caption(&dir, &args).stderr(Stdio::null()).spawn().unwrap());
    let n_records =
        || fs::read_to_string(dir.join("c.jsonl")).map_or(0, |t| t.matches('\n').count());
    let wait_for = |n: usize| {
        let end = Instant::now() + Duration::from_secs(120);
        while n_records() < n {
            assert!(
                Instant::now() < end,
                "{} records instead of {n}",
                n_records()
            );
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(1);
    // Written slowly, moved into place, in a folder of its own.
    let bytes = fs::read(drawn(381)).unwrap();
    let mut slow = fs::File::create(incoming.join("scene-00381.png")).unwrap();
    for half in bytes.chunks(bytes.len().div_ceil(2)) {
        slow.write_all(half).unwrap();
        thread::sleep(Duration::from_millis(500));
    }
    drop(slow);
    fs::copy(drawn(382), incoming.join(".part")).unwrap();
    fs::rename(incoming.join(".part"), incoming.join("scene-00382.png")).unwrap();
    fs::create_dir(incoming.join("day")).unwrap();
    fs::copy(drawn(383), incoming.join("day/scene-00383.png")).unwrap();
    wait_for(4);
    drop(watching);
    assert_eq!(captions(&records(&dir.join("c.jsonl"))), truth);
    // The next watch has nothing to do but what is new.
    let watching = Killed(caption(&dir, &args).stderr(Stdio::null()).spawn().unwrap());
    fs::copy(drawn(380), incoming.join("again.png")).unwrap();
    wait_for(5);
    drop(watching);
    let captions = captions(&records(&dir.join("c.jsonl")));
    assert_eq!(captions["again.png"], truth["scene-00380.png"]);
}

#[test]
fn frames_of_a_stream_are_captioned_if_they_differ() {
    let dir = scratch("stream");
    let truth = draw(&dir, "390..392");
    let jpeg = |seed: usize| {
        let picture = image::open(dir.join(format!("pictures/scene-00{seed}.png"))).unwrap();
        let mut file = std::io::Cursor::new(Vec::new());
        picture
            .to_rgb8()
            .write_to(&mut file, image::ImageFormat::Jpeg)
            .unwrap();
        file.into_inner()
    };
    let (a, b) = (jpeg(390), jpeg(391));
    let stream = [&a[..], &a, b"\r\n--frame\r\n", &b, &a[..a.len() / 2]].concat();
    let args = ["--mjpeg", "-", "--min-change", "1", "-o", "frames.jsonl"];
    let message = assert_status(&feed(caption(&dir, &args), &stream), 0);
    assert!(
        message.contains("2 captioned") && message.contains("1 skipped"),
        "{message}"
    );
    assert!(message.contains("1 frames broke off"), "{message}");
    let mut said = records(&dir.join("frames.jsonl"));
    said.sort_by_key(|record| record["path"].to_string()); // by the time at which they came
    let said: Vec<_> = said.iter().map(|r| r["caption"].clone()).collect();
    assert_eq!(
        said,
        [
            truth["scene-00390.png"].clone(),
            truth["scene-00391.png"].clone()
        ]
    );
    assert_status(&feed(caption(&dir, &["--mjpeg", "-"]), b"no pictures"), 1);
}
