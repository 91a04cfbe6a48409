//! Checks a picture: preprocessing, tower and projector.

use std::collections::{HashMap, HashSet};

use ndarray::ArrayView2;

use super::{
    Outcome, Stage, VerifyError,
    golden::{GoldenDir, PictureRecord, Recorded, Stats},
    picture_source::{PictureSource, is_lossy},
    precision::{Bound, Precision},
    tower_input::{self, TowerInput},
};
use crate::{
    engine::Engine,
    model::TileGrid,
    vision::{StageObserver, TokenLayout, image::RgbImage},
};

/// Maximum difference between decoders of lossy formats, in levels per pixel.
const LOSSY_LEVELS: u8 = 4;
/// Tolerance of pixel values, which are computed with the same arithmetic from the same integers.
const PIXEL_TOLERANCE: f64 = 1e-6;

/// Checks every stage of a picture.
pub(super) fn check(
    engine: &Engine,
    golden: &GoldenDir,
    record: &PictureRecord,
    precision: &Precision,
) -> Result<Outcome, VerifyError> {
    let mut stages = Vec::new();
    let (input, stage) = input(engine, golden, record)?;
    stages.extend(stage);
    stages.extend(pixel_stages(engine, record, &input)?);
    let mut watch = Watch {
        record,
        layout: input.grid.map(|grid| engine.encoder().token_layout(grid)),
        stages: Vec::new(),
        error: None,
    };
    input.encode(engine, &mut watch);
    stages.extend(watch.compare(precision.vision())?);
    Ok(Outcome {
        subject: record.image.clone(),
        stages,
        is_record: true,
    })
}

/// The tower's input, and its comparison with the recorded one.
///
/// If it was recorded, that is the input of the next stages, so that differences between decoders of lossy formats do
/// not affect them. The record of a strip of frames names no file.
fn input(
    engine: &Engine,
    golden: &GoldenDir,
    record: &PictureRecord,
) -> Result<(TowerInput, Option<Stage>), VerifyError> {
    let recorded = record.resized.as_ref();
    let recorded = recorded.map(|path| TowerInput::recorded(engine, path));
    let recorded = recorded.transpose()?;
    if record.is_strip()
        && let Some(recorded) = recorded
    {
        return Ok((recorded, None));
    }
    let source = PictureSource::File(record.image.clone());
    let tiling = engine.encoder().config().tiling;
    let Some(theirs) = recorded else {
        let hd_num = tower_input::hd_num(tiling, None, 1);
        return Ok((TowerInput::new(engine, golden, &source, hd_num)?, None));
    };
    let ours = match theirs.grid {
        None => TowerInput::new(engine, golden, &source, 1)?,
        Some(grid) => TowerInput::with_grid(engine, golden, &source, grid)?,
    };
    let stage = compare_resized(&record.image, &ours.picture, &theirs.picture);
    Ok((theirs, Some(stage)))
}

fn compare_resized(name: &str, ours: &RgbImage, theirs: &RgbImage) -> Stage {
    let allowed = if is_lossy(name) { LOSSY_LEVELS } else { 0 };
    let floats = |p: &RgbImage| p.as_raw().iter().map(|v| f32::from(*v)).collect::<Vec<_>>();
    let mut stage = Stage::absolute(
        "resized",
        &floats(ours),
        &floats(theirs),
        f64::from(allowed),
    );
    stage.tolerance = match allowed {
        0 => "equal".to_owned(),
        levels => format!("max {levels} levels"),
    };
    if stage.deviation.is_some_and(|d| d.max > 0.0) {
        stage.note = "decoded differently; the next stages use the recorded pixels".to_owned();
    }
    stage
}

/// The stages of the tower's pixels. With tiles: those of all tiles side by side, and of the whole picture.
fn pixel_stages(
    engine: &Engine,
    record: &PictureRecord,
    input: &TowerInput,
) -> Result<Vec<Stage>, VerifyError> {
    let first = input.pixels(engine, 0);
    let Some(grid) = input.grid else {
        return pixel_values(record, "pixel_values", first.values());
    };
    let mut stages = pixel_values(record, "pixel_values", &canvas_values(engine, input, grid))?;
    stages.extend(pixel_values(record, "glb_pixel_values", first.values())?);
    Ok(stages)
}

/// The normalised values of all tiles as one picture, `[3, height, width]`.
fn canvas_values(engine: &Engine, input: &TowerInput, grid: TileGrid) -> Vec<f32> {
    let side = engine.preprocessor().image_size() as usize;
    let tiles: Vec<_> = (1..=grid.len()).map(|i| input.pixels(engine, i)).collect();
    let mut values = Vec::new();
    for channel in 0..3 {
        for y in 0..grid.rows * side {
            for x in 0..grid.cols {
                let plane = tiles[y / side * grid.cols + x].plane(channel);
                values.extend(&plane[y % side * side..][..side]);
            }
        }
    }
    values
}

fn pixel_values(
    record: &PictureRecord,
    name: &str,
    values: &[f32],
) -> Result<Vec<Stage>, VerifyError> {
    if let Some(recorded) = record.tensors.f32(name)? {
        if recorded.values.len() != values.len() {
            let reason = format!("`{name}`: {:?} for another image size", recorded.shape);
            return Err(record.tensors.invalid(reason).into());
        }
        let stage = Stage::absolute(name, values, &recorded.values, PIXEL_TOLERANCE);
        return Ok(vec![stage]);
    }
    let stats = record.stats.iter().find(|(known, _)| known == name);
    Ok(stats
        .map(|(_, stats)| summary(name, values, *stats))
        .into_iter()
        .collect())
}

/// Compares a stage of which only a summary was recorded.
fn summary(name: &str, values: &[f32], expected: Stats) -> Stage {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let rms = (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n).sqrt();
    let absmax = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let found = [mean as f32, rms as f32, absmax];
    Stage::absolute(
        name,
        &found,
        &[expected.mean, expected.rms, expected.absmax],
        1e-5,
    )
    .with_note("mean, rms and largest only")
}

/// Collects the recorded rows of the tower's stages while they are computed.
///
/// Stages of tiles come tile by tile; they were recorded with the rows of all tiles one after another, and features in
/// the order of the embeddings.
struct Watch<'a> {
    record: &'a PictureRecord,
    layout: Option<TokenLayout>,
    stages: Vec<WatchedStage>,
    error: Option<VerifyError>,
}

/// The rows of a stage that were recorded.
struct WatchedStage {
    name: String,
    /// Tower inputs seen so far.
    n_inputs: usize,
    /// Numbers of the recorded rows.
    rows: Vec<usize>,
    recorded: Recorded<f32>,
    /// The computed rows; separators, which are weights, stay `None`.
    found: Vec<Option<Vec<f32>>>,
}

impl StageObserver for Watch<'_> {
    fn stage(&mut self, name: &str, values: ArrayView2<'_, f32>) {
        if let Err(error) = self.see(name, values) {
            self.error = self.error.take().or(Some(error));
        }
    }
}

impl Watch<'_> {
    fn see(&mut self, name: &str, values: ArrayView2<'_, f32>) -> Result<(), VerifyError> {
        let Some(at) = self.watched(name, values)? else {
            return Ok(());
        };
        let layout = self.layout.filter(|_| name == "features");
        let stage = &mut self.stages[at];
        let input = stage.n_inputs;
        let number = |row: usize| match layout {
            Some(layout) => layout.position(input, row),
            None => input * values.nrows() + row,
        };
        let numbers: HashMap<usize, usize> =
            (0..values.nrows()).map(|row| (number(row), row)).collect();
        for (found, wanted) in stage.found.iter_mut().zip(&stage.rows) {
            if let Some(row) = numbers.get(wanted) {
                *found = Some(values.row(*row).to_vec());
            }
        }
        stage.n_inputs += 1;
        Ok(())
    }

    /// The index of a stage in the list, if it was recorded.
    fn watched(
        &mut self,
        name: &str,
        values: ArrayView2<'_, f32>,
    ) -> Result<Option<usize>, VerifyError> {
        if let Some(at) = self.stages.iter().position(|stage| stage.name == name) {
            return Ok(Some(at));
        }
        let tensors = &self.record.tensors;
        let (recorded, rows): (_, Vec<usize>) = if let Some(whole) = tensors.f32(name)? {
            let n_cols = whole.shape.last().copied().unwrap_or(0).max(1);
            let n_rows = whole.values.len() / n_cols;
            (whole, (0..n_rows).collect())
        } else {
            let Some(sample) = tensors.sample(name, "rows")? else {
                return Ok(None);
            };
            sample
        };
        let n_cols = recorded.shape.last().copied().unwrap_or(0);
        if n_cols != values.ncols() || recorded.values.len() != rows.len() * n_cols {
            return Err(self.other_shape(name, &recorded, values.shape()));
        }
        self.stages.push(WatchedStage {
            name: name.to_owned(),
            n_inputs: 0,
            found: vec![None; rows.len()],
            rows,
            recorded,
        });
        Ok(Some(self.stages.len() - 1))
    }

    fn other_shape(&self, name: &str, recorded: &Recorded<f32>, found: &[usize]) -> VerifyError {
        let reason = format!(
            "`{name}`: recorded as {:?}, the model gives {found:?}; is this its golden directory?",
            recorded.shape
        );
        self.record.tensors.invalid(reason).into()
    }

    /// The comparison of each stage, in the order of computation.
    fn compare(self, bound: Bound) -> Result<Vec<Stage>, VerifyError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let separators: HashSet<usize> = match self.layout {
            None => HashSet::new(),
            Some(layout) => layout
                .row_separators()
                .chain([layout.view_separator()])
                .collect(),
        };
        let mut stages = Vec::new();
        for stage in &self.stages {
            let n_cols = stage.recorded.shape.last().copied().unwrap_or(1).max(1);
            let expected = stage.recorded.values.chunks(n_cols);
            let (mut all_found, mut all_expected) = (Vec::new(), Vec::new());
            for ((found, row), expected) in stage.found.iter().zip(&stage.rows).zip(expected) {
                match found {
                    Some(found) => {
                        all_found.extend(found);
                        all_expected.extend(expected);
                    }
                    None if stage.name == "features" && separators.contains(row) => {}
                    None => {
                        return Err(self.record.tensors.invalid(format!(
                            "`{}`: row {row} was recorded, which the model does not have; is this its golden \
                             directory?",
                            stage.name
                        ))
                        .into());
                    }
                }
            }
            stages.push(bound.stage(&stage.name, &all_found, &all_expected));
        }
        Ok(stages)
    }
}

impl Bound {
    /// Compares with this bound.
    pub(super) fn stage(self, name: &str, found: &[f32], expected: &[f32]) -> Stage {
        match self {
            Self::Absolute(tolerance) => Stage::absolute(name, found, expected, tolerance),
            Self::Relative(rms, cosine) => Stage::relative(name, found, expected, (rms, cosine)),
        }
    }
}
