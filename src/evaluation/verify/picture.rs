//! Checks a picture: preprocessing, tower and projector.

use std::path::Path;

use ndarray::ArrayView2;

use super::{
    Outcome, Stage, VerifyError,
    golden::{GoldenDir, GoldenError, PictureRecord, Recorded, Stats},
    precision::{Bound, Precision},
};
use crate::{
    engine::Engine,
    vision::StageObserver,
    vision::image::{self, PixelValues, ReadOptions, RgbImage},
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
    let (resized, stage) = resized(engine, golden, record)?;
    stages.extend(stage);
    let pixels = engine.preprocessor().normalize(&resized);
    stages.extend(pixel_values(record, &pixels)?);
    let mut watch = Watch {
        record,
        bound: precision.vision(),
        stages: Vec::new(),
        error: None,
    };
    engine.encoder().encode_observed(&pixels, &mut watch);
    if let Some(error) = watch.error {
        return Err(error);
    }
    stages.extend(watch.stages);
    Ok(Outcome {
        subject: record.image.clone(),
        stages,
        is_record: true,
    })
}

/// The resized picture for the tower, and its comparison with the recorded one.
///
/// If a picture was recorded, it is the input of the next stages, so that differences between decoders of lossy
/// formats do not affect them.
fn resized(
    engine: &Engine,
    golden: &GoldenDir,
    record: &PictureRecord,
) -> Result<(RgbImage, Option<Stage>), VerifyError> {
    let ours = resize(engine, golden, &record.image)?;
    let Some(path) = &record.resized else {
        return Ok((ours, None));
    };
    let theirs = open_resized(engine, path)?;
    let stage = compare_resized(&record.image, &ours, &theirs);
    Ok((theirs, Some(stage)))
}

/// A recorded resized picture.
pub(super) fn open_resized(engine: &Engine, path: &Path) -> Result<RgbImage, VerifyError> {
    let picture = image::open(path, ReadOptions::REFERENCE)?;
    let expected = engine.preprocessor().image_size();
    if picture.dimensions() == (expected, expected) {
        return Ok(picture);
    }
    let found = format!("{}x{}", picture.width(), picture.height());
    Err(GoldenError::PictureSize {
        path: path.to_owned(),
        expected,
        found,
    }
    .into())
}

/// The picture of that name, resized for the tower.
pub(super) fn resize(
    engine: &Engine,
    golden: &GoldenDir,
    name: &str,
) -> Result<RgbImage, VerifyError> {
    let picture = image::open(&golden.picture(name)?, ReadOptions::REFERENCE)?;
    Ok(engine.preprocessor().resize(&picture))
}

/// Whether decoders may differ for a picture of that name.
pub(super) fn is_lossy(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".jpg", ".jpeg", ".webp"].iter().any(|e| name.ends_with(e))
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

fn pixel_values(record: &PictureRecord, pixels: &PixelValues) -> Result<Vec<Stage>, VerifyError> {
    const NAME: &str = "pixel_values";
    if let Some(recorded) = record.tensors.f32(NAME)? {
        if recorded.values.len() != pixels.values().len() {
            let reason = format!("`{NAME}`: {:?} for another image size", recorded.shape);
            return Err(record.tensors.invalid(reason).into());
        }
        return Ok(vec![Stage::absolute(
            NAME,
            pixels.values(),
            &recorded.values,
            PIXEL_TOLERANCE,
        )]);
    }
    let stats = record.stats.iter().find(|(name, _)| name == NAME);
    Ok(stats
        .map(|(_, stats)| summary(NAME, pixels.values(), *stats))
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

/// Compares the tower's stages while they are computed.
struct Watch<'a> {
    record: &'a PictureRecord,
    bound: Bound,
    stages: Vec<Stage>,
    error: Option<VerifyError>,
}

impl StageObserver for Watch<'_> {
    fn stage(&mut self, name: &str, values: ArrayView2<'_, f32>) {
        match self.compare(name, values) {
            Ok(stage) => self.stages.extend(stage),
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }
}

impl Watch<'_> {
    fn compare(
        &self,
        name: &str,
        values: ArrayView2<'_, f32>,
    ) -> Result<Option<Stage>, VerifyError> {
        let tensors = &self.record.tensors;
        let (recorded, rows): (_, Vec<usize>) = if let Some(whole) = tensors.f32(name)? {
            (whole, (0..values.nrows()).collect())
        } else {
            let Some(sample) = tensors.sample(name, "rows")? else {
                return Ok(None);
            };
            sample
        };
        let found = self.rows(name, &recorded, &rows, values)?;
        Ok(Some(self.bound.stage(name, &found, &recorded.values)))
    }

    /// The recorded rows of `values`, concatenated.
    fn rows(
        &self,
        name: &str,
        recorded: &Recorded<f32>,
        rows: &[usize],
        values: ArrayView2<'_, f32>,
    ) -> Result<Vec<f32>, VerifyError> {
        let n_cols = recorded.shape.last().copied().unwrap_or(0);
        let fits = n_cols == values.ncols()
            && recorded.values.len() == rows.len() * n_cols
            && rows.iter().all(|r| *r < values.nrows());
        if !fits {
            let reason = format!(
                "`{name}`: recorded as {:?}, the model gives {:?}; is this its golden directory?",
                recorded.shape,
                values.shape()
            );
            return Err(self.record.tensors.invalid(reason).into());
        }
        Ok(rows.iter().flat_map(|r| values.row(*r).to_vec()).collect())
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
