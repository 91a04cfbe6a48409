//! The layers of `src/`: a room uses itself and the rooms below it, never one above (docs/architecture.md).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

/// The rooms from the top down. Rooms on one line do not use each other.
const LAYERS: [&[&str]; 6] = [
    &["cli"],
    &["tasks", "evaluation"],
    &["engine"],
    &["language", "vision"],
    &["model"],
    &["system"],
];

/// One use of a module: the file, and the path behind `crate::` in two parts (`model`, `gguf`).
struct Use {
    file: PathBuf,
    room: String,
    module: String,
}

#[test]
fn no_room_uses_one_above_or_beside_it() {
    let mut wrong = Vec::new();
    for used in uses() {
        let own = room_of(&used.file);
        if used.room != own && layer(&used.room) <= layer(&own) {
            wrong.push(format!("{} uses {}", used.file.display(), used.room));
        }
    }
    assert!(wrong.is_empty(), "upward arrows:\n{}", wrong.join("\n"));
}

#[test]
fn the_modules_of_a_room_do_not_use_each_other_in_a_circle() {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for used in uses() {
        let own = format!("{}/{}", room_of(&used.file), module_of(&used.file));
        let other = format!("{}/{}", used.room, used.module);
        if room_of(&used.file) == used.room && own != other && used.room != "engine" {
            arrows.entry(own).or_default().insert(other);
        }
    }
    // Takes modules away that use none of those that are left. What remains is a circle.
    while let Some(last) = arrows
        .iter()
        .find(|(_, used)| used.iter().all(|other| !arrows.contains_key(other)))
        .map(|(module, _)| module.clone())
    {
        arrows.remove(&last);
    }
    assert!(arrows.is_empty(), "circle: {arrows:#?}");
}

#[test]
fn every_folder_of_the_source_is_a_room() {
    let source = source();
    for entry in fs::read_dir(source).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".rs") {
            assert!(LAYERS.iter().any(|rooms| rooms.contains(&&*name)), "{name}");
        }
    }
}

#[test]
fn paths_are_found_in_code_and_not_in_comments() {
    let code = "use crate::{model::{gguf::A, tensor}, system::text};\n// crate::cli::x\nlet x = crate::engine::f();";
    let found: Vec<_> = paths(code).collect();
    assert_eq!(
        found,
        ["model::{gguf::A, tensor}", "system::text", "engine::f"]
    );
    assert_eq!(modules("{gguf::A, tensor}"), ["gguf", "tensor"]);
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn layer(room: &str) -> usize {
    let layer = LAYERS.iter().position(|rooms| rooms.contains(&room));
    layer.unwrap_or_else(|| panic!("`{room}` is no room"))
}

/// The first folder below `src`.
fn room_of(file: &Path) -> String {
    component(file, 0)
}

/// The module in the room: the second folder, or the file.
fn module_of(file: &Path) -> String {
    component(file, 1)
}

fn component(file: &Path, n: usize) -> String {
    let below = file.strip_prefix(source()).unwrap();
    let name = below.components().nth(n).unwrap().as_os_str();
    name.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// All uses of rooms in `src`, the crate's root (`lib.rs`, `main.rs`) left out.
fn uses() -> Vec<Use> {
    let mut uses = Vec::new();
    for entry in WalkDir::new(source()).min_depth(2) {
        let file = entry.unwrap().into_path();
        if file.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        for path in paths(&fs::read_to_string(&file).unwrap()) {
            let (room, rest) = path.split_once("::").unwrap_or((&path, ""));
            for module in modules(rest) {
                uses.push(Use {
                    file: file.clone(),
                    room: room.to_owned(),
                    module,
                });
            }
        }
    }
    assert!(uses.len() > 200, "found only {} uses", uses.len());
    uses
}

/// What follows `crate::` and `xc2_edge::` in code, lists at the top taken apart.
fn paths(code: &str) -> impl Iterator<Item = String> + use<> {
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let starts = ["crate::", "xc2_edge::"].map(|root| {
        let ends = code.match_indices(root).map(|(at, _)| at + root.len());
        ends.collect::<Vec<_>>()
    });
    let mut paths = Vec::new();
    for start in starts.concat() {
        paths.extend(items(&code[start..]));
    }
    paths.into_iter()
}

/// The items of the list, or the one path, that `code` begins with.
fn items(code: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in code.chars() {
        match c {
            '{' if depth == 0 && items == [""] => depth = 1, // the list itself
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 && code.starts_with('{') => {
                items.push(String::new());
                continue;
            }
            _ if depth == 0 && !(c.is_alphanumeric() || c == '_' || c == ':') => break,
            _ => {}
        }
        if !(c == '{' && items == [""]) {
            items.last_mut().unwrap().push(c);
        }
        if c == '}' && depth == 0 {
            break;
        }
    }
    if code.starts_with('{') {
        items.last_mut().unwrap().pop(); // the list's own brace
    }
    let items = items.iter().map(|item| item.trim().to_owned());
    items.filter(|item| !item.is_empty()).collect()
}

/// The first names of a path or a list of paths within a room.
fn modules(path: &str) -> Vec<String> {
    let list = if path.starts_with('{') {
        items(path)
    } else {
        vec![path.to_owned()]
    };
    let first = |path: &String| path.split("::").next().unwrap_or_default().to_owned();
    list.iter().map(first).collect()
}
