//! A conversation on the terminal: questions, pictures and answers, turn by turn.
//!
//! The session keeps every earlier turn and picture in the KV cache, so a turn computes only its new positions.

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
use conversation::{Conversation, Shown};
use interrupt::Interruptible;
use line::{Line, LineReader};
use xc2_edge::{
    engine::{Answer, Engine, Request, Session, StopReason},
    language::llama::end_process,
    model::container::Family,
    system::atomic_file::{self, Leftovers},
};

use super::{
    is_broken_pipe,
    report::{self, Report},
    screen::Screen,
};

/// Whether stdin and stdout are terminals.
pub fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Options of a conversation.
pub struct Options {
    /// Options of every question: sampling, layout, system prompt. Its pictures and texts are ignored.
    pub like: Request,
    /// Pictures of the first question.
    pub images: Vec<PathBuf>,
    /// Context size, if given.
    pub n_ctx: Option<usize>,
    /// No progress, no timings.
    pub quiet: bool,
}

/// Runs a conversation until the user leaves.
///
/// # Errors
/// If the terminal fails. Errors within a turn are printed, and the conversation continues.
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
                Ok(command) => report_failure(talk.run(command))?,
                Err(message) => report_failure(Err(anyhow::Error::msg(message)))?,
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

/// Prints the error of a turn. Only a closed stdout ends the conversation.
fn report_failure(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if is_broken_pipe(&error) => return Err(error),
        Err(error) => print_error(&error),
        Ok(()) => {}
    }
    Ok(())
}

/// Prints a message on stderr; ignores write errors.
fn say(message: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

fn print_error(error: &anyhow::Error) {
    say(format_args!("error: {error:#}"));
    if let Some(hint) = super::hint(error) {
        say(format_args!("hint: {hint}"));
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
        let is_v2d5 = engine.container().info().family == Family::V2d5;
        Self {
            engine,
            session: engine.session(),
            conversation: Conversation::new(system, marker, images).with_numbers(is_v2d5),
            options,
        }
    }

    fn welcome(&self) -> anyhow::Result<()> {
        for picture in self.conversation.pending() {
            self.look_at(&picture.path)?;
        }
        if !self.options.quiet {
            let name = &self.engine.container().info().name;
            say(format_args!(
                "{name}: ask a question. `/image FILE` adds a picture, `/help` lists all commands, Ctrl-D leaves."
            ));
        }
        Ok(())
    }

    /// Prepares the session for the first question while the user types. Typing runs in a second thread: the
    /// thread that computes keeps its pool of compute threads for the answer.
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
                    end_process(0); // do not wait until a large model is read
                }
                line
            });
            // If this fails, the question will fail as well and report why.
            let _ = self.session.reserve(&request);
            typing.join().expect("no panic")
        })
    }

    /// Checks that a picture can be read.
    fn look_at(&self, path: &Path) -> anyhow::Result<()> {
        self.engine.open_picture(path)?;
        Ok(())
    }

    /// Ctrl-C at the prompt: removes pending pictures, or says how to leave.
    fn interrupted_at_prompt(&mut self) {
        match self.conversation.drop_pending() {
            0 => say("Ctrl-D or `/quit` leaves"),
            1 => say("removed the picture"),
            n => say(format_args!("removed the {n} pictures")),
        }
    }

    fn run(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Say(text) => self.ask(&text)?,
            Command::Images(paths, hd_num) => self.add_images(paths, hd_num)?,
            Command::Clear => {
                self.conversation.clear();
                self.session.clear();
                say("conversation cleared");
            }
            Command::Save(path) => self.save(&path)?,
            Command::Help => say(help()),
            Command::Quit | Command::Nothing => {}
        }
        Ok(())
    }

    /// Adds the pictures that can be read, and reports errors of the others.
    fn add_images(&mut self, paths: Vec<PathBuf>, hd_num: Option<u32>) -> anyhow::Result<()> {
        if let Some(hd_num) = hd_num {
            self.engine.check_hd_num(hd_num)?;
        }
        let (mut n, mut fault) = (0, None);
        for path in paths {
            match self.look_at(&path) {
                Ok(()) => n = self.conversation.add_image(Shown { path, hd_num }),
                Err(error) => {
                    if let Some(earlier) = fault.replace(error) {
                        print_error(&earlier);
                    }
                }
            }
        }
        if n > 0 {
            let plural = if n == 1 { "" } else { "s" };
            say(format_args!("{n} picture{plural} for the next question"));
        }
        fault.map_or(Ok(()), Err)
    }

    fn ask(&mut self, text: &str) -> anyhow::Result<()> {
        let request = self.conversation.request(text, &self.options.like);
        let n_prompt = self.engine.prompt_size(&request)?.n_prompt;
        let warning = self
            .context_left(n_prompt)
            .before()
            .map_err(anyhow::Error::msg)?;
        if let Some(warning) = warning {
            say(format_args!("warning: {warning}"));
        }
        let mut screen = Screen::new(true, self.options.quiet);
        let answer = self
            .session
            .answer(&request, &mut Interruptible(&mut screen))?;
        screen.finish()?;
        writeln!(std::io::stdout())?;
        if answer.stop == StopReason::Interrupted && answer.text.is_empty() {
            say("stopped before the answer began; the question was not added to the conversation");
            return Ok(());
        }
        self.conversation.push(text, answer.text.clone());
        self.after(&answer, &request);
        Ok(())
    }

    /// Prints timings and warnings after an answer.
    fn after(&self, answer: &Answer, request: &Request) {
        if !self.options.quiet {
            let products = self.engine.matmul_backend();
            say(Report::new(answer, request.sampling, products));
        }
        if answer.stop == StopReason::Interrupted {
            say("the answer was stopped; its text stays in the conversation");
        } else if let Some(why) = report::cut(answer.stop) {
            say(why);
        }
        if let Some(warning) = self
            .context_left(answer.n_prompt + answer.ids.len())
            .after()
        {
            say(format_args!("warning: {warning}"));
        }
    }

    fn context_left(&self, n_used: usize) -> ContextLeft {
        let max = self.engine.max_context();
        ContextLeft {
            n_used,
            n_ctx: self.options.n_ctx.unwrap_or(max),
            max,
            n_picture: self.engine.n_tokens_at_most(1, self.options.like.tiles),
        }
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        ensure!(!self.conversation.is_empty(), "nothing to save yet");
        let text = self.conversation.as_file(path);
        Leftovers::default().clear(path);
        atomic_file::write(path, text.as_bytes())
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        say(format_args!("{}: written", path.display()));
        Ok(())
    }
}

fn help() -> String {
    let line = |(name, argument, does): &(&str, &str, &str)| {
        format!("{:<14} {does}", format!("{name} {argument}"))
    };
    let commands: Vec<_> = COMMANDS.iter().map(line).collect();
    let keys =
        "Ctrl-C         stop an answer, or clear the line; on an empty line, remove added pictures";
    format!("{}\n{keys}", commands.join("\n"))
}
