//! The results as a table and as JSON.

use serde_json::json;
use xc2_edge::{
    engine::Engine,
    language::llama::{self, MatmulBackend},
    model::quant::GgmlType,
    system::{machine, units::human},
    vision,
};
use xc2_kernels::{Cpu, peak::Peak};

use super::samples::Samples;
use crate::cli::arithmetic::{Arithmetic, decoder_type};

/// Results, model and machine.
pub struct Table {
    engine: Engine,
    n_threads: usize,
    peak: Peak,
    /// Peak memory read rate of all threads, in bytes per second.
    read: f64,
    rows: Vec<Row>,
}

/// A stage, or a part of one.
pub struct Row {
    pub name: &'static str,
    /// Work of one run.
    pub work: String,
    pub samples: Samples,
    pub rate: Option<Rate>,
    /// Operations per run, and their arithmetic.
    pub operations: Option<(f64, Arithmetic)>,
    /// Bytes of weights read per run, for stages limited by memory bandwidth.
    pub weights_read: Option<f64>,
    /// The stage that contains this part.
    pub part_of: Option<&'static str>,
    /// Who multiplied, in a stage of the decoder.
    pub products: Option<MatmulBackend>,
    /// Peak memory of the process, in bytes.
    pub peak_memory: Option<u64>,
}

impl Row {
    /// A row with durations only.
    pub fn new(name: &'static str, work: String, samples: Samples) -> Self {
        Self {
            name,
            work,
            samples,
            rate: None,
            operations: None,
            weights_read: None,
            part_of: None,
            products: None,
            peak_memory: None,
        }
    }

    /// Operations per second, and their share of the machine's peak, if known.
    fn speed(&self, peak: &Peak) -> Option<(f64, Option<f64>)> {
        let (operations, arithmetic) = self.operations?;
        let speed = operations / self.samples.median();
        let most = arithmetic.of(peak);
        Some((speed, (most > 0.0).then(|| speed / most)))
    }
}

/// Amount of work per run, in some unit.
#[derive(Clone, Copy)]
pub struct Rate {
    /// Per run.
    amount: f64,
    unit: &'static str,
}

impl Rate {
    pub fn new(amount: f64, unit: &'static str) -> Self {
        Self { amount, unit }
    }
}

impl Table {
    pub fn new(engine: Engine, n_threads: usize, peak: Peak, read: f64, rows: Vec<Row>) -> Self {
        Self {
            engine,
            n_threads,
            peak,
            read,
            rows,
        }
    }

    /// As JSON.
    pub fn as_json(&self) -> serde_json::Value {
        let container = self.engine.container();
        json!({
            "model": {
                "name": container.info().name,
                "path": container.path(),
                "decoder_type": decoder_type(container).map(GgmlType::name),
                "image_size": container.info().vision.image_size,
            },
            "machine": {
                "cpu": machine::cpu_name(),
                "n_threads": self.n_threads,
                "simd": Cpu::chosen().name(),
                "peak": {
                    "f32_flops": self.peak.f32, "bf16_flops": self.peak.bf16,
                    "int8_ops": self.peak.int8, "memory_read_bytes_per_s": self.read,
                },
            },
            "kernels": {
                "tower": vision::kernels(),
                "decoder": llama::kernels(self.engine.matmul_backend()),
                "llama.cpp": llama::system_info(),
            },
            "stages": self.rows.iter().map(|row| self.row_as_json(row)).collect::<Vec<_>>(),
        })
    }

    fn row_as_json(&self, row: &Row) -> serde_json::Value {
        let s = &row.samples;
        let speed = row.speed(&self.peak);
        json!({
            "stage": row.name,
            "part_of": row.part_of,
            "backend": row.products.map(MatmulBackend::name),
            "work": row.work,
            "median_s": s.median(),
            "least_s": s.least(),
            "most_s": s.most(),
            "first_s": s.first,
            "n": s.len(),
            "rate": row.rate.map(|r| json!({"value": r.amount / s.median(), "unit": r.unit})),
            "operations_per_s": speed.map(|(speed, _)| speed),
            "arithmetic": row.operations.map(|(_, a)| a.name()),
            "share_of_peak": speed.and_then(|(_, share)| share),
            "weights_read_bytes_per_s": row.weights_read.map(|bytes| bytes / s.median()),
            "peak_memory_bytes": row.peak_memory,
        })
    }

    fn line(&self, row: &Row) -> String {
        let s = &row.samples;
        let name = match row.part_of {
            Some(_) => format!("  {}", row.name),
            None if row.products == Some(MatmulBackend::Ggml) => format!("{} ggml", row.name),
            None => row.name.to_owned(),
        };
        let rate = row.rate.map_or(String::new(), |r| {
            format!("{} {}", short(r.amount / s.median()), r.unit)
        });
        let speed = match row.speed(&self.peak) {
            Some((speed, Some(share))) => {
                let arithmetic = row.operations.map_or("", |(_, a)| a.name());
                let share = 100.0 * share;
                format!("{:.0} GOP/s, {share:.0} % of {arithmetic}", speed / 1e9)
            }
            Some((speed, None)) => format!("{:.0} GOP/s", speed / 1e9),
            None => row.weights_read.map_or(String::new(), |bytes| {
                let speed = bytes / s.median();
                let share = 100.0 * speed / self.read;
                format!("{}/s, {share:.0} % of memory", human(speed as u64))
            }),
        };
        let memory = row.peak_memory.map_or(String::new(), human);
        let line = format!(
            "{name:<12} {:<36} {:>8} {:>8} {:>8} {:>8}  {rate:<16} {speed:<26} {memory:>9}",
            row.work,
            short(s.median()),
            short(s.least()),
            short(s.most()),
            short(s.first),
        );
        line.trim_end().to_owned()
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let container = self.engine.container();
        let ty = decoder_type(container).map_or("none", GgmlType::name);
        let cpu = machine::cpu_name().unwrap_or_else(|| "unknown CPU".to_owned());
        let n = self.n_threads;
        let plural = if n == 1 { "" } else { "s" };
        writeln!(
            f,
            "{}, decoder mostly {ty}: {}",
            container.info().name,
            container.path().display()
        )?;
        writeln!(
            f,
            "{cpu}, {n} thread{plural}, {} kernels",
            Cpu::chosen().name()
        )?;
        let read = human(self.read as u64);
        writeln!(
            f,
            "at most, all threads: {}, {read}/s from memory\n",
            self.peak
        )?;
        writeln!(
            f,
            "{:<12} {:<36} {:>8} {:>8} {:>8} {:>8}  {:<16} {:<26} {:>9}",
            "stage", "a run", "median s", "least", "most", "first", "rate", "speed", "memory"
        )?;
        for row in &self.rows {
            writeln!(f, "{}", self.line(row))?;
        }
        Ok(())
    }
}

/// A number with two or three significant digits: `123`, `12.3`, `1.23`, `0.0123`.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.0995 => format!("{value:.2}"),
        v if v >= 0.00995 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_or_three_digits() {
        for (value, text) in [
            (1234.5, "1234"),
            (99.96, "100"),
            (12.34, "12.3"),
            (1.2345, "1.23"),
            (0.5, "0.50"),
            (0.01234, "0.012"),
            (0.001234, "0.0012"),
            (0.0, "0.0000"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn the_share_is_of_the_peak_of_its_arithmetic() {
        let peak = Peak {
            f32: 100.0,
            bf16: 0.0,
            int8: 400.0,
        };
        let samples = Samples::new(vec![9.0, 2.0]);
        let row = |arithmetic| Row {
            operations: Some((100.0, arithmetic)),
            ..Row::new("encode", String::new(), samples.clone())
        };
        assert_eq!(row(Arithmetic::F32).speed(&peak), Some((50.0, Some(0.5))));
        assert_eq!(
            row(Arithmetic::Int8).speed(&peak),
            Some((50.0, Some(0.125)))
        );
        assert_eq!(row(Arithmetic::Bf16).speed(&peak), Some((50.0, None)));
    }
}
