//! A conversation on the terminal: questions, pictures and answers, turn by turn.
//!
//! The session below keeps every earlier turn and picture in the KV cache, so a turn costs what is new
//! in it.

mod command;
mod context_left;
mod conversation;
mod dropped;
mod interrupt;
mod line;

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::{Context, ensure};
use command::{COMMANDS, Command};
use context_left::ContextLeft;
use conversation::Conversation;
use interrupt::Interruptible;
use line::{Line, LineReader};
use xc2_edge::{
    engine::{Answer, Engine, Request, Session, StopReason},
    language::llama::end_process,
    system::atomic_file::{self, Leftovers},
};

use super::{
    is_broken_pipe,
    report::{self, Report},
    screen::Screen,
};

/// Whether a person sits there: both ends are a terminal.
pub fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// How a conversation is led.
pub struct Options {
    /// Every question is asked as this one is; its pictures and texts do not count, its system text
    /// does.
    pub like: Request,
    /// Pictures of the first question.
    pub images: Vec<PathBuf>,
    /// Positions of the context that were asked for.
    pub n_ctx: Option<usize>,
    /// No progress, no timings.
    pub quiet: bool,
}

/// Converses until the person leaves.
///
/// # Errors
/// If the terminal fails. What goes wrong in a turn is told, and the conversation goes on.
pub fn run(engine: &Engine, options: Options) -> anyhow::Result<ExitCode> {
    let mut reader = LineReader::new()?;
    interrupt::install()?;
    let mut talk = Talk::new(engine, options);
    talk.welcome()?;
    loop {
        let typing = || {
            let line = reader.read(PROMPT);
            interrupt::begin();
            line
        };
        match talk.ready_while(typing)? {
            Line::Text(line) => match Command::parse(&line) {
                Ok(Command::Quit) => break,
                Ok(command) => told(talk.carry_out(command))?,
                Err(message) => told(Err(anyhow::Error::msg(message)))?,
            },
            Line::Interrupted => talk.interrupted_at_prompt(),
            Line::End => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

const PROMPT: &str = "> ";

/// Whether a line ends the conversation.
fn leaves(line: &Line) -> bool {
    match line {
        Line::Text(text) => matches!(Command::parse(text), Ok(Command::Quit)),
        Line::Interrupted => false,
        Line::End => true,
    }
}

/// Tells what went wrong in a turn. Only that nobody reads any more ends the conversation.
fn told(done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(error) if is_broken_pipe(&error) => return Err(error),
        Err(error) => tell_error(&error),
        Ok(()) => {}
    }
    Ok(())
}

/// Tells a person something that is no answer.
fn tell(message: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{message}"); // nothing is left to be done if it fails
}

fn tell_error(error: &anyhow::Error) {
    tell(format_args!("error: {error:#}"));
    if let Some(hint) = super::hint(error) {
        tell(format_args!("hint: {hint}"));
    }
}

struct Talk<'a> {
    engine: &'a Engine,
    session: Session<'a>,
    conversation: Conversation,
    options: Options,
}

impl<'a> Talk<'a> {
    fn new(engine: &'a Engine, mut options: Options) -> Self {
        let system = options.like.chat.system.clone();
        let marker = engine.container().info().prompt.image_marker.clone();
        let images = std::mem::take(&mut options.images);
        Self {
            engine,
            session: engine.session(),
            conversation: Conversation::new(system, marker, images),
            options,
        }
    }

    fn welcome(&self) -> anyhow::Result<()> {
        for path in self.conversation.pending() {
            self.look_at(path)?;
        }
        if !self.options.quiet {
            let name = &self.engine.container().info().name;
            tell(format_args!(
                "{name}: ask something. `/image FILE` shows a picture, `/help` tells the rest, Ctrl-D leaves."
            ));
        }
        Ok(())
    }

    /// Makes the session ready for the first question while a person types. That goes on beside: who
    /// computes now has threads that wait for what it computes next.
    fn ready_while(
        &mut self,
        typing: impl FnOnce() -> anyhow::Result<Line> + Send,
    ) -> anyhow::Result<Line> {
        if self.session.n_past() > 0 {
            return typing();
        }
        let request = self.conversation.request("?", &self.options.like);
        thread::scope(|scope| {
            let typing = scope.spawn(|| {
                let line = typing();
                if line.as_ref().is_ok_and(leaves) {
                    end_process(0); // reading a large model may take long, and nobody waits for it
                }
                line
            });
            // Should it fail, the question most likely will, and tells why.
            let _ = self.session.reserve(&request);
            typing.join().expect("no panic")
        })
    }

    /// Whether a picture can be read, before it is asked about.
    fn look_at(&self, path: &Path) -> anyhow::Result<()> {
        self.engine.open_picture(path)?;
        Ok(())
    }

    /// Ctrl-C where nothing runs: takes back pictures, or tells how to leave.
    fn interrupted_at_prompt(&mut self) {
        match self.conversation.drop_pending() {
            0 => tell("Ctrl-D or `/quit` leaves"),
            1 => tell("the picture is taken back"),
            n => tell(format_args!("the {n} pictures are taken back")),
        }
    }

    fn carry_out(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Say(text) => self.ask(&text)?,
            Command::Images(paths) => self.add_images(paths)?,
            Command::Clear => {
                self.conversation.clear();
                self.session.clear();
                tell("forgotten");
            }
            Command::Save(path) => self.save(&path)?,
            Command::Help => tell(help()),
            Command::Quit | Command::Nothing => {}
        }
        Ok(())
    }

    /// Adds those pictures that can be read, and reports what is wrong with the others.
    fn add_images(&mut self, paths: Vec<PathBuf>) -> anyhow::Result<()> {
        let (mut n, mut fault) = (0, None);
        for path in paths {
            match self.look_at(&path) {
                Ok(()) => n = self.conversation.add_image(path),
                Err(error) => {
                    if let Some(earlier) = fault.replace(error) {
                        tell_error(&earlier);
                    }
                }
            }
        }
        if n > 0 {
            let plural = if n == 1 { "" } else { "s" };
            tell(format_args!("{n} picture{plural} for the next question"));
        }
        fault.map_or(Ok(()), Err)
    }

    fn ask(&mut self, text: &str) -> anyhow::Result<()> {
        let request = self.conversation.request(text, &self.options.like);
        let n_prompt = self.engine.prompt_size(&request)?.n_prompt;
        let warning = self.room(n_prompt).before().map_err(anyhow::Error::msg)?;
        if let Some(warning) = warning {
            tell(format_args!("warning: {warning}"));
        }
        let mut screen = Screen::new(true, self.options.quiet);
        let answer = self
            .session
            .answer(&request, &mut Interruptible(&mut screen))?;
        screen.finish()?;
        writeln!(std::io::stdout())?;
        if answer.stop == StopReason::Interrupted && answer.text.is_empty() {
            tell("stopped before the answer began; the question is not part of the conversation");
            return Ok(());
        }
        self.conversation.push(text, answer.text.clone());
        self.after(&answer, &request);
        Ok(())
    }

    /// What is said below an answer.
    fn after(&self, answer: &Answer, request: &Request) {
        if !self.options.quiet {
            let products = self.engine.products();
            tell(Report::new(answer, request.sampling, products));
        }
        if answer.stop == StopReason::Interrupted {
            tell("the answer was stopped; what was said counts");
        } else if let Some(why) = report::cut(answer.stop) {
            tell(why);
        }
        if let Some(warning) = self.room(answer.n_prompt + answer.ids.len()).after() {
            tell(format_args!("warning: {warning}"));
        }
    }

    fn room(&self, n_used: usize) -> ContextLeft {
        let info = self.engine.container().info();
        let max = info.max_context();
        ContextLeft {
            n_used,
            n_ctx: self.options.n_ctx.unwrap_or(max),
            max,
            n_picture: info.vision.n_patches(),
        }
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        ensure!(
            !self.conversation.is_empty(),
            "there is nothing to save yet"
        );
        let text = self.conversation.as_file(path);
        Leftovers::default().clear(path);
        atomic_file::write(path, text.as_bytes())
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        tell(format_args!("{}: written", path.display()));
        Ok(())
    }
}

fn help() -> String {
    let line = |(name, argument, does): &(&str, &str, &str)| {
        format!("{:<14} {does}", format!("{name} {argument}"))
    };
    let commands: Vec<_> = COMMANDS.iter().map(line).collect();
    let keys =
        "Ctrl-C         stops an answer, clears a line; on an empty one, takes pictures back";
    format!("{}\n{keys}", commands.join("\n"))
}
