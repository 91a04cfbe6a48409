//! `xc2-edge caption` for pictures that arrive during the run: in a watched folder, from a camera.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::captions::{
    Killed, assert_status, caption, captions, draw, feed, model, records, scratch,
};

/// Waits until a record file has `n` lines.
#[track_caller]
fn wait_for_records(file: &Path, n: usize) {
    let end = Instant::now() + Duration::from_secs(120);
    let count = || fs::read_to_string(file).map_or(0, |text| text.matches('\n').count());
    while count() < n {
        assert!(
            Instant::now() < end,
            "expected {n} records, found {}",
            count()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn new_pictures_in_a_watched_folder_get_captions() {
    let dir = scratch("watched");
    let truth = draw(&dir, "380..384");
    let incoming = dir.join("incoming");
    fs::create_dir(&incoming).unwrap();
    let drawn = |seed: usize| dir.join(format!("pictures/scene-00{seed}.png"));
    fs::copy(drawn(380), incoming.join("scene-00380.png")).unwrap();
    let args = ["--watch", "incoming", "-o", "c.jsonl"];
    let watching = Killed(caption(&dir, &args).stderr(Stdio::null()).spawn().unwrap());
    let wait_for = |n: usize| wait_for_records(&dir.join("c.jsonl"), n);
    wait_for(1);
    // A slow write, a rename, and a new folder.
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
    // The next watch captions only new pictures.
    let watching = Killed(caption(&dir, &args).stderr(Stdio::null()).spawn().unwrap());
    fs::copy(drawn(380), incoming.join("again.png")).unwrap();
    wait_for(5);
    drop(watching);
    let captions = captions(&records(&dir.join("c.jsonl")));
    assert_eq!(captions["again.png"], truth["scene-00380.png"]);
}

#[test]
fn a_replaced_folder_is_still_watched_and_a_removed_one_ends_the_run() {
    let dir = scratch("replaced");
    let truth = draw(&dir, "415..417");
    let drawn = |seed: usize| dir.join(format!("pictures/scene-00{seed}.png"));
    let incoming = dir.join("incoming");
    fs::create_dir(&incoming).unwrap();
    fs::copy(drawn(415), incoming.join("scene-00415.png")).unwrap();
    fs::copy(drawn(415), incoming.join("photo.heic")).unwrap();
    let args = ["--watch", "incoming", "-o", "c.jsonl", "--txt"];
    let mut command = caption(&dir, &args);
    let mut watching = Killed(command.stderr(Stdio::piped()).spawn().unwrap());
    wait_for_records(&dir.join("c.jsonl"), 1);
    fs::rename(&incoming, dir.join("old")).unwrap();
    fs::create_dir(&incoming).unwrap();
    fs::copy(drawn(416), incoming.join("scene-00416.png")).unwrap();
    wait_for_records(&dir.join("c.jsonl"), 2);
    assert_eq!(captions(&records(&dir.join("c.jsonl"))), truth);
    // A second picture for the same text file gets no record, the one after it does.
    fs::copy(drawn(415), incoming.join("scene-00416.jpg")).unwrap();
    thread::sleep(Duration::from_millis(500));
    fs::copy(drawn(415), incoming.join("z.png")).unwrap();
    wait_for_records(&dir.join("c.jsonl"), 3);

    fs::remove_dir_all(&incoming).unwrap();
    let status = watching.0.wait().unwrap();
    let mut message = String::new();
    let mut stderr = watching.0.stderr.take().unwrap();
    stderr.read_to_string(&mut message).unwrap();
    assert_eq!(status.code(), Some(1), "{message}");
    for part in [
        "incoming: is gone",
        "1 file left out: HEIC",
        "3 captioned",
        "would share the sidecar `incoming/scene-00416.txt`",
    ] {
        assert!(message.contains(part), "`{part}`: {message}");
    }
}

#[test]
fn beyond_the_inotify_limit_a_folder_is_polled() {
    let dir = scratch("limit");
    let truth = draw(&dir, "420..422");
    let drawn = |seed: usize| dir.join(format!("pictures/scene-00{seed}.png"));
    let limit = "echo \"$0\" > /proc/sys/user/\"$1\" && shift && exec \"$@\"";
    let in_namespace = |n: &str, which: &str| {
        let mut command = Command::new("unshare");
        command
            .current_dir(&dir)
            .args(["-Ur", "sh", "-c", limit, n, which]);
        command
    };
    let tried = in_namespace("1", "max_inotify_watches")
        .arg("true")
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: limits of a user cannot be set here");
        return;
    }
    let limits = [
        ("1", "max_inotify_watches", "fs.inotify.max_user_watches"),
        (
            "0",
            "max_inotify_instances",
            "fs.inotify.max_user_instances",
        ),
    ];
    let check = |(n, which, setting): (&str, &str, &str)| {
        let incoming = dir.join(which);
        fs::create_dir_all(incoming.join("sub")).unwrap();
        fs::copy(drawn(420), incoming.join("sub/scene-00420.png")).unwrap();
        let file = dir.join(format!("{which}.jsonl"));
        let mut command = in_namespace(n, which);
        command
            .arg(env!("CARGO_BIN_EXE_xc2-edge"))
            .args(["caption", "-m"]);
        command
            .arg(model())
            .args(["--watch", which, "-o"])
            .arg(&file);
        let mut watching = Killed(command.stderr(Stdio::piped()).spawn().unwrap());
        wait_for_records(&file, 1);
        fs::copy(drawn(421), incoming.join("scene-00421.png")).unwrap();
        wait_for_records(&file, 2);
        assert_eq!(captions(&records(&file)), truth);
        fs::remove_dir_all(&incoming).unwrap();
        assert_eq!(watching.0.wait().unwrap().code(), Some(1));
        let mut message = String::new();
        let mut stderr = watching.0.stderr.take().unwrap();
        stderr.read_to_string(&mut message).unwrap();
        let command = format!("sudo sysctl {setting}=");
        for part in [setting, "every 10 s", &command, "is gone"] {
            assert!(message.contains(part), "`{part}`: {message}");
        }
    };
    // In parallel: both mostly wait for the next poll.
    thread::scope(|scope| {
        limits
            .map(|limit| {
                let check = &check;
                scope.spawn(move || check(limit))
            })
            .map(|run| run.join().unwrap())
    });
}

#[test]
fn changed_frames_of_a_stream_are_captioned() {
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
    assert!(
        message.contains("1 truncated frames were skipped"),
        "{message}"
    );
    let mut frames = records(&dir.join("frames.jsonl"));
    frames.sort_by_key(|record| record["path"].to_string()); // the path holds the time
    let found: Vec<_> = frames.iter().map(|r| r["caption"].clone()).collect();
    assert_eq!(
        found,
        [
            truth["scene-00390.png"].clone(),
            truth["scene-00391.png"].clone()
        ]
    );
    assert_status(&feed(caption(&dir, &["--mjpeg", "-"]), b"no pictures"), 1);
}
