//! Output files of an article.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xc2_edge::{
    system::atomic_file::{AtomicDir, AtomicFile},
    tasks::compose::{
        Brief, Composition, Language, Placed,
        output::{Format, OutputError, write},
    },
};

fn picture(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let rgb = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 90]));
    rgb.save(&path).unwrap();
    path
}

fn article(dir: &Path) -> Composition {
    let placed = |section, name, alt: &str| Placed {
        section,
        file: picture(dir, name),
        alt: alt.to_owned(),
        wanted: None,
        candidates: vec![],
    };
    Composition {
        format: 1,
        language: Language::Zh,
        brief: Brief::default(),
        sections: ["Ink & <water>", "It **flows**.", "The end."]
            .map(String::from)
            .into(),
        pictures: vec![
            placed(1, "Red circle (1).png", "A \"red\" [circle]"),
            placed(2, "图.bmp", "A <map>"),
        ],
        given: vec![],
        library: None,
        notes: vec![],
        stages: vec![],
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn markdown_has_numbered_pictures() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let article = article(from.path());
    let page = to.path().join("my page.md");
    for _ in 0..2 {
        // The second run replaces the first.
        write(&article, Format::Markdown, &page).unwrap();
        assert_eq!(
            fs::read_to_string(&page).unwrap(),
            "# Ink &amp; &lt;water>\n\n\
             It **flows**.\n\n\
             ![A \"red\" \\[circle\\]](my%20page_files/01-red-circle-1.png)\n\n\
             The end.\n\n\
             ![A &lt;map>](my%20page_files/02-picture.png)\n"
        );
        assert_eq!(names(to.path()), ["my page.md", "my page_files"]);
        assert_eq!(
            names(&to.path().join("my page_files")),
            ["01-red-circle-1.png", "02-picture.png"]
        );
    }
    // Unchanged if browsers show the format, as PNG otherwise.
    let copy = fs::read(to.path().join("my page_files/01-red-circle-1.png")).unwrap();
    assert_eq!(copy, fs::read(&article.pictures[0].file).unwrap());
    let png = image::open(to.path().join("my page_files/02-picture.png")).unwrap();
    assert_eq!(
        png.to_rgb8(),
        image::open(&article.pictures[1].file).unwrap().to_rgb8()
    );
}

#[test]
fn html_is_self_contained() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    write(&article(dir.path()), Format::Html, &page).unwrap();
    let html = fs::read_to_string(page).unwrap();
    for part in [
        "<html lang=\"zh\">",
        "<meta name=\"viewport\"",
        "<title>Ink &amp; &lt;water&gt;</title>",
        "<h1>Ink &amp; &lt;water&gt;</h1>",
        "<p>It <strong>flows</strong>.</p>\n<figure><img alt=\"A &quot;red&quot; [circle]\" src=\"data:image/png;base64,iVBOR",
        "<img alt=\"A &lt;map&gt;\" src=\"data:image/jpeg;base64,/9j/",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("http"), "it fetches something");
}

#[test]
fn large_pictures_are_embedded_at_screen_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut article = article(dir.path());
    let noisy = image::RgbImage::from_fn(2000, 1000, |x, y| {
        let n = (x.wrapping_mul(7919) ^ y.wrapping_mul(104_729)).wrapping_mul(2_654_435_761);
        image::Rgb(n.to_le_bytes()[..3].try_into().unwrap())
    });
    let file = dir.path().join("noisy.png");
    noisy.save(&file).unwrap();
    article.pictures.truncate(1);
    article.pictures[0].file = file;
    let page = dir.path().join("page.html");
    write(&article, Format::Html, &page).unwrap();
    let html = fs::read_to_string(page).unwrap();
    let data = html
        .split("base64,")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data).unwrap();
    let shown = image::load_from_memory(&bytes).unwrap();
    assert_eq!((shown.width(), shown.height()), (1600, 800));
}

#[test]
fn a_missing_picture_leaves_the_output_unchanged() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let article = article(from.path());
    let page = to.path().join("a.md");
    write(&article, Format::Markdown, &page).unwrap();
    let before = fs::read(&page).unwrap();
    fs::remove_file(&article.pictures[1].file).unwrap();
    for (format, name) in [(Format::Markdown, "a.md"), (Format::Html, "a.html")] {
        let error = write(&article, format, &to.path().join(name)).unwrap_err();
        assert!(error.to_string().contains("图.bmp"), "{error}");
    }
    assert_eq!(fs::read(&page).unwrap(), before);
    assert_eq!(names(to.path()), ["a.md", "a_files"]);
}

#[test]
fn files_of_others_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let article = article(dir.path());
    fs::create_dir(dir.path().join("a_files")).unwrap();
    fs::write(dir.path().join("a_files/notes.txt"), "mine").unwrap();
    let error = write(&article, Format::Markdown, &dir.path().join("a.md")).unwrap_err();
    assert!(
        matches!(&error, OutputError::Occupied { found, .. } if found == "notes.txt"),
        "{error}"
    );
    assert!(dir.path().join("a_files/notes.txt").exists() && !dir.path().join("a.md").exists());
}

#[test]
fn leftovers_of_killed_runs_are_removed_and_files_of_running_ones_kept() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (article, to) = (article(from.path()), to.path());
    for name in ["a.md", "a.html", "a.json", "b.md"] {
        fs::write(to.join(format!(".{name}Ab12xY.part")), "half").unwrap();
    }
    fs::create_dir_all(to.join(".a_filesAb12xY.part/new")).unwrap();
    fs::write(to.join(".a_filesAb12xY.part/new/01-a.png"), "half").unwrap();
    let page = AtomicFile::create(&to.join("a.md")).unwrap();
    let pictures = AtomicDir::create(&to.join("a_files")).unwrap();
    for (format, name) in [
        (Format::Markdown, "a.md"),
        (Format::Html, "a.html"),
        (Format::Json, "a.json"),
    ] {
        write(&article, format, &to.join(name)).unwrap();
    }
    assert_eq!(names(to).len(), 7, "{:?}", names(to));
    drop((page, pictures));
    let expected = [".b.mdAb12xY.part", "a.html", "a.json", "a.md", "a_files"];
    assert_eq!(names(to), expected);
}

#[test]
fn pages_may_have_names_of_maximal_length_and_any_bytes() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let article = article(from.path());
    let long = "a".repeat(252) + ".md";
    let chinese = "图".repeat(83) + ".md";
    let pages = [
        long.as_bytes(),
        chinese.as_bytes(),
        b"caf\xe9.md",
        b"caf\xe8.md",
    ];
    for name in pages {
        write(
            &article,
            Format::Markdown,
            &to.path().join(OsStr::from_bytes(name)),
        )
        .unwrap();
    }
    // Each links to a directory of its own.
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 2 * pages.len());
    assert!(to.path().join(r"caf\xe9_files").is_dir());
    let page = fs::read_to_string(to.path().join(&chinese)).unwrap();
    assert!(page.contains("_files/01-"), "{page}");
}

#[test]
fn json_round_trips() {
    let dir = tempfile::tempdir().unwrap();
    let article = article(dir.path());
    let file = dir.path().join("a.json");
    write(&article, Format::Json, &file).unwrap();
    let text = fs::read_to_string(file).unwrap();
    assert_eq!(Composition::from_json(&text).unwrap(), article);

    let later = text.replace("\"format\": 1", "\"format\": 2");
    assert!(
        Composition::from_json(&later)
            .unwrap_err()
            .to_string()
            .contains("found 2")
    );
    let beyond = text.replace("\"section\": 2", "\"section\": 3");
    let error = Composition::from_json(&beyond).unwrap_err().to_string();
    assert_eq!(
        error,
        "a picture stands after section 3, expected one of 0 to 2"
    );
    assert!(Composition::from_json("{}").is_err());
}
