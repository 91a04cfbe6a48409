//! `xc2-edge doctor`.

mod cpu;
mod estimate;
mod storage;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};
use xc2_edge::system;

use clap::Args;
use estimate::Estimate;
pub use estimate::PictureRates;
use serde_json::json;
use xc2_edge::{
    engine::{self, default_threads},
    model::container::Container,
    system::{
        machine::{self, Load, Thermal},
        units::human,
    },
    vision::Precision,
};

use crate::cli::number::whole;

/// Check this machine: CPU features in use, what slows it down, expected speed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge doctor
  xc2-edge doctor -m model.gguf
  xc2-edge doctor --storage /media/card
  xc2-edge doctor -m model.gguf --json | jq '.findings[] | select(.level == \"warning\")'

Estimates come from running small kernels for a second; `xc2-edge bench -m model.gguf` measures
the model itself. Storage is read without the page cache, at most 256 MB or for three seconds.")]
pub struct DoctorArgs {
    /// Also estimate the speed of this model, and measure how fast its storage is.
    #[arg(short, long, value_name = "GGUF")]
    model: Option<PathBuf>,
    /// Measure the storage of this file or folder instead of the model's; in a folder, a temporary file
    /// of 64 MB is written.
    #[arg(long, value_name = "PATH")]
    storage: Option<PathBuf>,
    /// Number of threads to assume [default: one per core].
    #[arg(short, long, value_name = "N", value_parser = whole::<u16>(1..=512))]
    threads: Option<u16>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Runs will be slower, or fail.
    Warning,
    /// The system does not provide the information.
    Unknown,
}

/// What was found about one topic.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    pub topic: &'static str,
    pub level: Level,
    pub text: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Finding {
    fn new(topic: &'static str, level: Level, text: String) -> Self {
        Self {
            topic,
            level,
            text,
            advice: None,
        }
    }

    fn ok(topic: &'static str, text: String) -> Self {
        Self::new(topic, Level::Ok, text)
    }

    fn warning(topic: &'static str, text: String) -> Self {
        Self::new(topic, Level::Warning, text)
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = match self.level {
            Level::Ok => "ok",
            Level::Warning => "WARN",
            Level::Unknown => "?",
        };
        write!(f, "{mark:<5} {:<9} {}", self.topic, self.text)?;
        match &self.advice {
            Some(advice) => write!(f, "\n                -> {advice}"),
            None => Ok(()),
        }
    }
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let n_threads = args.threads.map_or_else(default_threads, usize::from);
    super::use_threads(n_threads)?;
    let container = args.model.as_deref().map(engine::open).transpose()?;
    args.storage.as_deref().map(storage::find).transpose()?;
    let mut report = Report::new(args.json);
    report.add(processor(n_threads))?;
    report.add(load(Load::read(), n_threads))?;
    report.add(cpu::kernels())?;
    report.add(cpu::build())?;
    report.add(memory(container.as_ref()))?;
    report.add(heat(&Thermal::read()))?;
    if let Some(path) = args.storage.as_deref().or(args.model.as_deref()) {
        // The page cache matters only if the model's own file was measured.
        let model = container.as_ref().filter(|_| args.storage.is_none());
        report.add(storage(path, model)?)?;
    }
    let estimate = |container| Estimate::new(container, Precision::default(), n_threads);
    let estimate = container.as_ref().map(estimate);
    report.add(expectation(estimate.as_ref(), container.as_ref()))?;
    if args.json {
        let report = json!({
            "cpu": machine::cpu_name(), "n_threads": n_threads, "findings": report.findings,
            "estimate": estimate,
        });
        writeln!(std::io::stdout(), "{report:#}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The findings so far. As text, each is printed at once: some take up to three seconds.
struct Report {
    as_json: bool,
    findings: Vec<Finding>,
}

impl Report {
    fn new(as_json: bool) -> Self {
        Self {
            as_json,
            findings: Vec::new(),
        }
    }

    fn add(&mut self, finding: Finding) -> std::io::Result<()> {
        if !self.as_json {
            writeln!(std::io::stdout(), "{finding}")?;
        }
        self.findings.push(finding);
        Ok(())
    }
}

fn processor(n_threads: usize) -> Finding {
    let name = machine::cpu_name().unwrap_or_else(|| "an unknown CPU".to_owned());
    let n_cores = default_threads();
    let text = format!("{name}, {n_cores} cores for this process, {n_threads} threads");
    if n_threads <= n_cores {
        return Finding::ok("cpu", text);
    }
    Finding::warning("cpu", text)
        .advice("more threads than cores wait for each other: use a smaller `-t`")
}

/// Other work on the machine, which shares the cores.
fn load(load: Option<Load>, n_threads: usize) -> Finding {
    let Some(load) = load else {
        return Finding::new(
            "load",
            Level::Unknown,
            "the system does not report it".to_owned(),
        );
    };
    let text = format!(
        "{:.1} in the last minute, on {} cores",
        load.last_minute, load.n_cores
    );
    if load.has_free_cores(n_threads) {
        return Finding::ok("load", text);
    }
    Finding::warning(
        "load",
        format!("{text}: other work competes with {n_threads} threads"),
    )
    .advice(
        "the estimate below may be off by a factor of two or more: run this again when the machine is idle",
    )
}

/// Available memory compared with the model's need for a picture and 512 more positions.
fn memory(container: Option<&Container>) -> Finding {
    let Some(available) = system::memory::available() else {
        let text = "the system does not report it".to_owned();
        return Finding::new("memory", Level::Unknown, text);
    };
    let mut text = format!("{} available", human(available));
    if let Some(total) = system::memory::installed().filter(|total| available < *total) {
        text += &format!(" of {}", human(total));
    }
    let Some(container) = container else {
        return Finding::ok("memory", text);
    };
    let need = super::info::usual_need(container);
    let need = match need {
        Ok(need) => need.total(),
        Err(error) => return Finding::warning("memory", format!("{text}; the model: {error}")),
    };
    text += &format!(", the model needs {} with a picture", human(need));
    if need <= available {
        return Finding::ok("memory", text);
    }
    Finding::warning("memory", text).advice("`xc2-edge run` says which options would make it fit")
}

fn heat(thermal: &Thermal) -> Finding {
    if !thermal.is_known() {
        let text = "the system does not report temperatures or throttling".to_owned();
        return Finding::new("heat", Level::Unknown, text);
    }
    let hottest = thermal.hottest.as_ref();
    let hottest = hottest.map(|(name, degrees)| format!("{name} at {degrees:.0} degrees Celsius"));
    let complaints = thermal.warnings();
    let all: Vec<String> = hottest
        .into_iter()
        .chain(complaints.iter().cloned())
        .collect();
    if complaints.is_empty() {
        let text = all.first().map_or("", String::as_str);
        return Finding::ok("heat", format!("no throttling; {text}"));
    }
    Finding::warning("heat", all.join("; "))
        .advice("better cooling, a stronger power supply or fewer threads keep the clock rate up")
}

fn storage(path: &Path, model: Option<&Container>) -> anyhow::Result<Finding> {
    let storage = storage::measure(path)?;
    let mut text = format!("{} reads {}/s", path.display(), human(storage.rate as u64));
    if !storage.direct {
        text += " (through the page cache, so it may be too high)";
    }
    if let Some(container) = model {
        let bytes = container.file().file_bytes() as f64;
        text += &format!(", the whole model in {:.1} s", bytes / storage.rate);
        if let Some(share) = container.file().cached_share() {
            text += &format!("; {:.0} % of it is in the page cache now", 100.0 * share);
        }
    }
    Ok(Finding::ok("storage", text))
}

/// Models with narrower matrices than this do not reach the assumed rates.
const SMALL: usize = 1024;

fn expectation(estimate: Option<&Estimate>, container: Option<&Container>) -> Finding {
    let (Some(estimate), Some(container)) = (estimate, container) else {
        let text = "the time per picture depends on the model: give one with `-m`".to_owned();
        return Finding::new("expect", Level::Unknown, text);
    };
    let vision = &container.info().vision;
    let mut text = format!(
        "about {:.2} s per picture of {} px ({:.2} s tower, {:.2} s prefill), then {:.0} tokens/s; \
         estimated from matrix products at {:.0} GOP/s and memory at {:.0} GB/s on this machine, and from \
         measurements on two other machines",
        estimate.encode_s + estimate.prefill_s,
        vision.image_size,
        estimate.encode_s,
        estimate.prefill_s,
        estimate.decode_tokens_per_s,
        estimate.product_ops_per_s / 1e9,
        estimate.memory_bytes_per_s / 1e9,
    );
    if container.info().decoder.n_embd < SMALL {
        text += "; a model as small as this takes a few times as long";
    }
    Finding::ok("expect", text).advice("`xc2-edge bench -m MODEL` measures the model itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_slows_down_the_threads_is_a_warning() {
        let level = |last_minute, n_threads| {
            let n_cores = 4;
            let of = Load {
                last_minute,
                n_cores,
            };
            load(Some(of), n_threads).level
        };
        assert_eq!(level(0.3, 4), Level::Ok);
        assert_eq!(level(1.9, 2), Level::Ok);
        assert_eq!(level(1.9, 4), Level::Warning);
        assert_eq!(level(9.0, 1), Level::Warning);
        assert_eq!(load(None, 1).level, Level::Unknown);
    }
}
