//! Reads a golden directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::picture_source::PictureSource;
use crate::{
    language::prompt::PloraPolicy,
    system::text::{self, TextError},
};

/// What is wrong with a golden directory.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GoldenError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A `.json` cannot be read or is not UTF-8 text.
    #[error("{}", path.display())]
    Text { path: PathBuf, source: TextError },
    /// A `.json` has the wrong structure.
    #[error("{}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A `.safetensors` is invalid.
    #[error("{}: {reason}", path.display())]
    Tensors { path: PathBuf, reason: String },
    /// There is nothing to compare with.
    #[error(
        "`{}` holds no golden cases: expected NAME.json with NAME.safetensors or with token ids alone, \
         or images/NAME.json",
        path.display()
    )]
    Empty { path: PathBuf },
    /// A recorded picture has another size than the model's.
    #[error(
        "{}: expected {expected}x{expected} pixels, found {found}; is this the model's golden \
         directory?",
        path.display()
    )]
    PictureSize {
        path: PathBuf,
        expected: u32,
        found: String,
    },
    /// A picture of a record was not found.
    #[error("picture `{name}` is in none of {}; give its directory with `--images DIR`", places.join(", "))]
    NoPicture { name: String, places: Vec<String> },
}

/// A directory of recorded outputs.
#[derive(Clone, Debug)]
pub struct GoldenDir {
    path: PathBuf,
    pictures_in: Vec<PathBuf>,
}

/// A picture's record.
#[derive(Debug)]
pub(super) struct PictureRecord {
    /// File name of the picture.
    pub image: String,
    /// Summary of every stage, in order.
    pub stats: Vec<(String, Stats)>,
    /// The recorded stages.
    pub tensors: Tensors,
    /// The picture after the resize, if it was recorded.
    pub resized: Option<PathBuf>,
}

impl PictureRecord {
    /// Whether it is a strip of frames: named without an extension.
    pub fn is_strip(&self) -> bool {
        Path::new(&self.image).extension().is_none()
    }
}

/// Summary of a stage: mean, root mean square and largest magnitude.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Stats {
    pub mean: f32,
    pub rms: f32,
    pub absmax: f32,
}

/// A conversation's record.
#[derive(Debug)]
pub(super) struct ConversationRecord {
    pub case: Case,
    /// `None` if only token ids were recorded.
    pub tensors: Option<Tensors>,
}

/// A question and the original's answer.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    pub name: String,
    pub query: String,
    #[serde(default)]
    pub images: Vec<PictureSource>,
    /// The maximum number of tiles per picture that the caller asked for.
    #[serde(default)]
    pub hd_num: Option<u32>,
    /// The task whose adapters were on.
    #[serde(default)]
    pub infer_mode: Option<String>,
    /// The length for which the rotary embedding was scaled.
    #[serde(default)]
    pub planned_length: Option<usize>,
    /// Number of `<s>` at the start of a prompt without pictures.
    #[serde(default)]
    pub text_bos: Option<usize>,
    #[serde(default)]
    pub history: Vec<(String, String)>,
    #[serde(default)]
    pub meta: String,
    #[serde(default)]
    plora: Policy,
    pub ids: Vec<Ids>,
    image_runs: Option<Vec<(usize, usize)>>,
    #[serde(default)]
    pub greedy_ids: Vec<i32>,
    #[serde(default)]
    pub greedy_text: Option<String>,
    #[serde(default)]
    pub greedy_margins: Vec<f32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    #[default]
    Image,
    None,
    All,
}

/// An id, or a run of a picture's positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Ids {
    Id(i32),
    /// -1 and the number of positions.
    Image(i32, usize),
}

impl Case {
    /// The runs of the pictures' positions: start and length.
    pub fn image_runs(&self) -> Vec<(usize, usize)> {
        let from_ids = || {
            let mut end = 0;
            let runs = self.ids.iter().filter_map(|id| match *id {
                Ids::Id(_) => {
                    end += 1;
                    None
                }
                Ids::Image(_, n) => {
                    end += n;
                    Some((end - n, n))
                }
            });
            runs.collect()
        };
        self.image_runs.clone().unwrap_or_else(from_ids)
    }

    /// Number of `<s>` at the start, for a prompt without pictures: as recorded, for it depends on how the original
    /// was called.
    pub fn n_bos(&self, bos: i32) -> usize {
        let is_bos = |id: &&Ids| matches!(id, Ids::Id(id) if *id == bos);
        let leading = self.ids.iter().take_while(is_bos).count();
        self.text_bos.unwrap_or(leading)
    }

    /// Whether no part of an answer was recorded.
    fn has_no_answer(&self) -> bool {
        self.greedy_ids.is_empty() && self.greedy_text.is_none() && self.greedy_margins.is_empty()
    }

    pub fn plora(&self) -> PloraPolicy {
        match self.plora {
            Policy::Image => PloraPolicy::Images,
            Policy::None => PloraPolicy::Nowhere,
            Policy::All => PloraPolicy::Everywhere,
        }
    }
}

impl GoldenDir {
    /// The directory at `path`. Pictures are searched for in `images` if given, else in or near `path`.
    pub fn new(path: &Path, images: Option<&Path>) -> Self {
        let near = || {
            ["images", ".", "../images", "../../images", "../.."]
                .map(|p| path.join(p))
                .to_vec()
        };
        let pictures_in = images.map_or_else(near, |dir| vec![dir.to_owned()]);
        Self {
            path: path.to_owned(),
            pictures_in,
        }
    }

    /// Number of records.
    ///
    /// # Errors
    /// If the directory cannot be read or has no records.
    pub fn n_records(&self) -> Result<usize, GoldenError> {
        let n = self.json_files("images")?.len() + self.json_files(".")?.len();
        if n == 0 {
            Err(GoldenError::Empty {
                path: self.path.clone(),
            })
        } else {
            Ok(n)
        }
    }

    /// The path of the picture of that name.
    pub(super) fn picture(&self, name: &str) -> Result<PathBuf, GoldenError> {
        let found = self
            .pictures_in
            .iter()
            .map(|dir| dir.join(name))
            .find(|p| p.is_file());
        found.ok_or_else(|| GoldenError::NoPicture {
            name: name.to_owned(),
            places: self
                .pictures_in
                .iter()
                .map(|p| format!("`{}`", p.display()))
                .collect(),
        })
    }

    pub(super) fn pictures(&self) -> Result<Vec<PictureRecord>, GoldenError> {
        #[derive(Deserialize)]
        struct Record {
            image: String,
            #[serde(default)]
            stats: serde_json::Map<String, serde_json::Value>,
        }
        let read = |path: PathBuf| {
            let record: Record = json(&path)?;
            let stats = record
                .stats
                .into_iter()
                .filter_map(|(stage, value)| Some((stage, serde_json::from_value(value).ok()?)));
            let resized = path.with_extension("resized.png");
            Ok(PictureRecord {
                image: record.image,
                stats: stats.collect(),
                tensors: Tensors::read(&path.with_extension("safetensors"))?,
                resized: resized.is_file().then_some(resized),
            })
        };
        self.json_files("images")?.into_iter().map(read).collect()
    }

    pub(super) fn conversations(&self) -> Result<Vec<ConversationRecord>, GoldenError> {
        let read = |path: PathBuf| {
            let case: Case = json(&path)?;
            let file = path.with_extension("safetensors");
            let tensors = if case.has_no_answer() && !file.exists() {
                None
            } else {
                let tensors = Tensors::read(&file)?;
                let is_empty = tensors.parsed()?.is_empty();
                (!(case.has_no_answer() && is_empty)).then_some(tensors)
            };
            Ok(ConversationRecord { case, tensors })
        };
        self.json_files(".")?.into_iter().map(read).collect()
    }

    /// The `.json` files of a subdirectory that are records, sorted: those with a `.safetensors` file, and
    /// conversations, for which it may be that only token ids were recorded.
    fn json_files(&self, subdirectory: &str) -> Result<Vec<PathBuf>, GoldenError> {
        let dir = self.path.join(subdirectory);
        if subdirectory != "." && !dir.exists() {
            return Ok(Vec::new());
        }
        let io = |source| GoldenError::Io {
            path: dir.clone(),
            source,
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let is_record = path.extension().is_some_and(|e| e == "json")
                && (path.with_extension("safetensors").is_file() || has_ids(&path));
            if is_record {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Whether a `.json` is the record of a conversation, so that missing tensors of an answer are an error.
fn has_ids(path: &Path) -> bool {
    json::<serde_json::Value>(path).is_ok_and(|value| value.get("ids").is_some())
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, GoldenError> {
    let text = text::read(path).map_err(|source| GoldenError::Text {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| GoldenError::Json {
        path: path.to_owned(),
        source,
    })
}

/// The tensors of a record.
#[derive(Debug)]
pub(super) struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A recorded tensor: values, and their shape.
pub(super) struct Recorded<T> {
    pub values: Vec<T>,
    pub shape: Vec<usize>,
}

/// Rows or columns of a tensor, and their numbers.
type Sample = (Recorded<f32>, Vec<usize>);

/// Recorded logits: of all tokens, or only of the tokens `at`.
pub(super) struct RecordedLogits {
    /// Row by row.
    pub values: Vec<f32>,
    pub n_rows: usize,
    pub n_columns: usize,
    at: Option<Vec<usize>>,
}

impl RecordedLogits {
    /// The recorded columns of `rows`; each row has `n_vocab` values.
    ///
    /// `None` if the recording is for another vocabulary.
    pub fn columns_of(&self, rows: &[f32], n_vocab: usize) -> Option<Vec<f32>> {
        let Some(at) = &self.at else {
            return (self.n_columns == n_vocab).then(|| rows.to_vec());
        };
        let rows = rows.chunks(n_vocab);
        rows.flat_map(|row| at.iter().map(|column| row.get(*column).copied()))
            .collect()
    }
}

impl Tensors {
    fn read(path: &Path) -> Result<Self, GoldenError> {
        let bytes = fs::read(path).map_err(|source| GoldenError::Io {
            path: path.to_owned(),
            source,
        })?;
        let tensors = Self {
            path: path.to_owned(),
            bytes,
        };
        tensors.parsed()?;
        Ok(tensors)
    }

    fn parsed(&self) -> Result<SafeTensors<'_>, GoldenError> {
        SafeTensors::deserialize(&self.bytes).map_err(|e| GoldenError::Tensors {
            path: self.path.clone(),
            reason: e.to_string(),
        })
    }

    /// The `f32` tensor of that name, if it was recorded.
    pub fn f32(&self, name: &str) -> Result<Option<Recorded<f32>>, GoldenError> {
        self.values(name, Dtype::F32, f32::from_le_bytes)
    }

    /// The logits of that name, if they were recorded: all columns as `NAME`, or some as `NAME.columns` with their
    /// indices in `NAME.at`.
    pub fn logits(&self, name: &str) -> Result<Option<RecordedLogits>, GoldenError> {
        let (recorded, at) = match self.f32(name)? {
            Some(whole) => (whole, None),
            None => match self.sample(name, "columns")? {
                Some((sample, at)) => (sample, Some(at)),
                None => return Ok(None),
            },
        };
        let [n_rows, n_columns] = recorded.shape[..] else {
            let reason = format!("`{name}`: expected a matrix, found {:?}", recorded.shape);
            return Err(self.invalid(reason));
        };
        if let Some(n) = at.as_ref().map(Vec::len).filter(|n| *n != n_columns) {
            let reason = format!("`{name}.at`: expected {n_columns} numbers of columns, found {n}");
            return Err(self.invalid(reason));
        }
        Ok(Some(RecordedLogits {
            values: recorded.values,
            n_rows,
            n_columns,
            at,
        }))
    }

    /// A sample `NAME.KIND` of rows or columns, if there is one, and their numbers `NAME.at`.
    pub fn sample(&self, name: &str, kind: &str) -> Result<Option<Sample>, GoldenError> {
        let Some(sample) = self.f32(&format!("{name}.{kind}"))? else {
            return Ok(None);
        };
        let Some(at) = self.i32(&format!("{name}.at"))? else {
            let reason =
                format!("`{name}.{kind}`: expected the numbers of the {kind} in `{name}.at`");
            return Err(self.invalid(reason));
        };
        // A negative number becomes one that no tensor has.
        let at = at.values.iter().map(|i| *i as usize).collect();
        Ok(Some((sample, at)))
    }

    /// The `i32` tensor of that name, if it was recorded.
    pub fn i32(&self, name: &str) -> Result<Option<Recorded<i32>>, GoldenError> {
        self.values(name, Dtype::I32, i32::from_le_bytes)
    }

    fn values<T>(
        &self,
        name: &str,
        dtype: Dtype,
        read: impl Fn([u8; 4]) -> T,
    ) -> Result<Option<Recorded<T>>, GoldenError> {
        let tensors = self.parsed()?;
        let Ok(tensor) = tensors.tensor(name) else {
            return Ok(None);
        };
        if tensor.dtype() != dtype {
            let reason = format!("`{name}`: expected {dtype:?}, found {:?}", tensor.dtype());
            return Err(GoldenError::Tensors {
                path: self.path.clone(),
                reason,
            });
        }
        let (chunks, _) = tensor.data().as_chunks::<4>();
        let values = chunks.iter().map(|c| read(*c)).collect();
        Ok(Some(Recorded {
            values,
            shape: tensor.shape().to_vec(),
        }))
    }

    /// An error about this file.
    pub fn invalid(&self, reason: impl Into<String>) -> GoldenError {
        GoldenError::Tensors {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    /// Tensors of two dimensions by name: shape, and 32-bit values of the type.
    fn tensors(of: &[(&str, Dtype, [usize; 2])]) -> Tensors {
        let data: Vec<u8> = (0..64u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let numbers: Vec<u8> = [0i32, 2, 9, -1]
            .iter()
            .flat_map(|i| i.to_le_bytes())
            .collect();
        let views = of.iter().map(|(name, dtype, shape)| {
            let (data, shape) = match dtype {
                Dtype::I32 => (&numbers[..4 * shape[0]], vec![shape[0]]),
                _ => (&data[..4 * shape[0] * shape[1]], shape.to_vec()),
            };
            (*name, TensorView::new(*dtype, shape, data).unwrap())
        });
        Tensors {
            path: PathBuf::from("x.safetensors"),
            bytes: safetensors::serialize(views, None).unwrap(),
        }
    }

    const ROWS: [f32; 6] = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];

    #[test]
    fn logits_are_compared_at_the_recorded_columns() {
        let whole = tensors(&[("x", Dtype::F32, [2, 3])]);
        let whole = whole.logits("x").unwrap().unwrap();
        assert_eq!(whole.columns_of(&ROWS, 3).unwrap(), ROWS);
        assert!(whole.columns_of(&ROWS, 2).is_none(), "another vocabulary");
        let sample = [
            ("x.columns", Dtype::F32, [2, 2]),
            ("x.at", Dtype::I32, [2, 1]),
        ];
        let sample = tensors(&sample).logits("x").unwrap().unwrap();
        assert_eq!(sample.columns_of(&ROWS, 3).unwrap(), [0.0, 2.0, 10.0, 12.0]);
        assert!(sample.columns_of(&ROWS, 2).is_none(), "another vocabulary");
        assert!(tensors(&[]).logits("x").unwrap().is_none());
    }

    #[test]
    fn a_sample_whose_numbers_do_not_fit_is_refused() {
        let alone = tensors(&[("x.columns", Dtype::F32, [2, 2])]);
        assert!(alone.logits("x").is_err());
        let columns = ("x.columns", Dtype::F32, [2, 2]);
        let fewer = tensors(&[columns, ("x.at", Dtype::I32, [1, 1])]);
        assert!(fewer.logits("x").is_err());
        for n in [3, 4] {
            let beyond = [
                ("x.columns", Dtype::F32, [2, n]),
                ("x.at", Dtype::I32, [n, 1]),
            ];
            let beyond = tensors(&beyond).logits("x").unwrap().unwrap();
            assert!(beyond.columns_of(&ROWS, 3).is_none(), "{n}");
        }
    }
}
