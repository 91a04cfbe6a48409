//! Captions files, files that arrive in a watched folder, and frames of a stream.

use std::{
    io::BufReader,
    path::{Path, PathBuf},
    sync::mpsc::{self, SyncSender, TrySendError},
    thread,
};

use anyhow::{Context, ensure};
use xc2_edge::tasks::caption::{
    self, Arrival, Decision, EXTENSIONS, Frames, Inventory, Limit, Next, POLL, Refused,
    SkippedFiles,
};

use super::{
    CaptionArgs, open_input,
    work::{Item, Work},
};
use crate::cli::say;

/// Capacity of the queue of files or frames waiting to be captioned.
const QUEUE: usize = 64;

/// Pictures that were skipped, by reason.
#[derive(Default)]
struct Skipped {
    known: usize,
    /// Known, but some of their sidecar files were missing.
    completed: usize,
    failed_before: usize,
    occupied: usize,
}

impl Skipped {
    fn report(&self, args: &CaptionArgs) {
        let report = |n: usize, why: &str| {
            if n > 0 && !args.quiet {
                say(&format!("{n} of those skipped {why}"));
            }
        };
        let output = args.output.as_deref().unwrap_or(Path::new(""));
        let known = format!("already have a caption in {}", output.display());
        report(self.known, &known);
        let completed = format!(
            "had a caption in {}; their missing text file or copy was written",
            output.display()
        );
        report(self.completed, &completed);
        let failed = "failed in an earlier run; --retry-failed tries them again";
        report(self.failed_before, failed);
        let occupied = match args.output {
            Some(_) => "have a text file or copy that was edited or not made from these records",
            None => "already have a text file or copy",
        };
        let occupied = format!("{occupied}; --overwrite captions them and replaces it");
        report(self.occupied, &occupied);
    }
}

/// Captions files and folders. Returns the number of failures, including unreadable folders.
pub fn caption(args: &CaptionArgs) -> anyhow::Result<usize> {
    let mut inventory = find(args)?;
    let refused = refuse(args, &mut inventory)?;
    let mut work = Work::new(args)?;
    for error in inventory.unreadable() {
        work.tally.unreadable(error);
    }
    work.tally.skipped_files(inventory.skipped());
    for refused in refused {
        work.refused(&refused.found, refused.error);
    }
    let mut found = inventory.into_found();
    if let Some(shard) = args.shard {
        found.retain(|found| shard.has(&found.name));
    }
    let (mut todo, mut skipped) = (Vec::new(), Skipped::default());
    for found in found {
        match work.plan(&found)? {
            Decision::Caption => todo.push(found),
            Decision::FailedBefore => skipped.failed_before += 1,
            Decision::Occupied | Decision::Edited(_) => skipped.occupied += 1,
            Decision::Sidecars(_) => skipped.completed += 1,
            Decision::Done => skipped.known += 1,
        }
    }
    if !todo.is_empty() {
        args.sidecars().probe(&todo)?;
        let engine = args.engine.load()?;
        let captioner = args.captioner(&engine)?.at_most(todo.len());
        work.tally.begin(Some(todo.len()), args.resumes());
        let mut items = todo.into_iter().map(Item::File);
        let source = |_| items.next().map_or(Next::End, Next::Item);
        work = work.run(&captioner, source)?;
    }
    let n_unreadable = work.tally.counts().unreadable;
    let n_failed = work.finish(args)?;
    skipped.report(args);
    Ok(n_failed + n_unreadable + skipped.failed_before)
}

/// Removes pictures whose text files or copies would overwrite each other. Checks all shards: the other
/// picture may belong to another machine's.
///
/// # Errors
/// If no picture is left.
fn refuse(args: &CaptionArgs, inventory: &mut Inventory) -> anyhow::Result<Vec<Refused>> {
    let mut refused = args.sidecars().refuse(inventory.found_mut());
    if inventory.found().is_empty() && !refused.is_empty() {
        return Err(refused.swap_remove(0).error.into());
    }
    if let Some(shard) = args.shard {
        refused.retain(|refused| shard.has(&refused.found.name));
    }
    Ok(refused)
}

/// Finds the pictures.
fn find(args: &CaptionArgs) -> anyhow::Result<Inventory> {
    let mut inventory = Inventory::new(args.selection());
    for path in &args.paths {
        match path {
            path if path == Path::new("-") => {
                inventory.add_list(BufReader::new(open_input(path)?))?;
            }
            path => inventory.add(path)?,
        }
    }
    let is_empty = inventory.found().is_empty();
    let from_list = args.paths.iter().any(|path| path == Path::new("-"));
    ensure!(!is_empty || from_list, "{}", no_pictures(&inventory));
    if is_empty && !args.quiet {
        say("the list on stdin names no pictures: nothing to do");
    }
    Ok(inventory)
}

/// The message that no pictures were found, and what was found instead.
fn no_pictures(inventory: &Inventory) -> String {
    let endings = EXTENSIONS.join(", ");
    let mut text =
        format!("no pictures found; folders are searched for files that end in {endings}");
    if let Some(skipped) = inventory.skipped().summary() {
        text += &format!("; {skipped}");
    }
    for error in inventory.unreadable().iter().take(3) {
        let why = std::error::Error::source(error).map(ToString::to_string);
        text += &format!("; {error}: {}", why.unwrap_or_default());
    }
    text
}

/// Captions the pictures in a folder and those that arrive, until the folder is removed.
pub fn watch(args: &CaptionArgs, dir: &Path) -> anyhow::Result<usize> {
    ensure!(
        dir.is_dir(),
        "--watch {}: expected a folder, found {}",
        dir.display(),
        if dir.exists() { "a file" } else { "nothing" }
    );
    let is_dir = |copies: &PathBuf| same_file(copies, dir);
    ensure!(
        !args.embed.as_ref().is_some_and(is_dir),
        "--embed {0}: expected another folder than --watch {0}: the copies would replace the pictures",
        dir.display()
    );
    let (send, arrivals) = mpsc::sync_channel(QUEUE);
    let (folder, selection, shard) = (dir.to_owned(), args.selection(), args.shard);
    let mut work = Work::new(args)?;
    let engine = args.engine.load()?;
    let (tally, quiet) = (work.tally.clone(), args.quiet);
    let watcher = thread::spawn(move || {
        caption::watch(&folder, &selection, |arrival| {
            match arrival {
                Arrival::Picture(found) => {
                    let is_ours = shard.is_none_or(|shard| shard.has(&found.name));
                    return !is_ours || send.send(Item::Arrival(found)).is_ok();
                }
                Arrival::Skipped(why) => tally.skipped_files(&SkippedFiles::one(why)),
                Arrival::Unreadable(error) => tally.unreadable(&error),
                Arrival::Polling(_) if quiet => {}
                Arrival::Polling(limit) => say(&polling(&folder, limit)),
            }
            true
        })
    });
    if !args.quiet {
        say(&format!("watching {}; Ctrl-C stops", dir.display()));
    }
    work.tally.begin(None, args.resumes());
    let source = |idle| Next::received(&arrivals, idle);
    let work = work.run(&args.captioner(&engine)?, source)?;
    work.finish(args)?;
    match watcher.join() {
        Ok(result) => result?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(0)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The warning that a folder cannot be watched, with a hint.
fn polling(dir: &Path, limit: Limit) -> String {
    let (setting, enough) = (limit.setting(), limit.enough());
    let value = limit.value().map_or(String::new(), |n| format!(" ({n})"));
    format!(
        "warning: {}: cannot be watched: the system's limit {setting}{value} is reached; scanning it every \
         {} s instead\n\
         hint: `sudo sysctl {setting}={enough}` raises the limit until the next boot, `echo \
         {setting}={enough} | sudo tee /etc/sysctl.d/60-xc2-edge.conf` for every boot; then restart",
        dir.display(),
        POLL.as_secs()
    )
}

/// Captions the frames of a stream, until it ends.
pub fn frames(args: &CaptionArgs, stream: &Path) -> anyhow::Result<usize> {
    let mut frames = Frames::new(open_input(stream)?);
    // With a capacity of 0, a frame is accepted only while the receiver waits.
    let (send, arrivals) = mpsc::sync_channel(if args.live { 0 } else { 1 });
    let mut work = Work::new(args)?;
    let engine = args.engine.load()?;
    let mut captioner = args.captioner(&engine)?;
    if args.live {
        captioner = captioner.at_most(1);
    }
    let live = args.live;
    let reader = thread::spawn(move || {
        for frame in frames.by_ref() {
            if !hand_over(&send, Item::Frame(frame?), live) {
                break;
            }
        }
        Ok::<_, std::io::Error>(frames.n_broken())
    });
    work.tally.begin(None, false);
    let source = |idle| Next::received(&arrivals, idle);
    work = work.run(&captioner, source)?;
    let counts = work.tally.counts();
    let n_failed = work.finish(args)?;
    let n_broken = match reader.join() {
        Ok(result) => result.with_context(|| stream.display().to_string())?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    if n_broken > 0 && !args.quiet {
        say(&format!("{n_broken} truncated frames were skipped"));
    }
    ensure!(
        n_broken + counts.captioned + counts.failed + counts.skipped > 0,
        "{}: expected a stream of JPEGs, found none",
        stream.display()
    );
    Ok(n_failed)
}

/// Sends a frame to the captioner. If `live`, the frame is dropped unless the captioner is waiting.
/// Returns `false` if the captioner is gone.
fn hand_over(send: &SyncSender<Item>, frame: Item, live: bool) -> bool {
    if !live {
        return send.send(frame).is_ok();
    }
    !matches!(send.try_send(frame), Err(TrySendError::Disconnected(_)))
}
