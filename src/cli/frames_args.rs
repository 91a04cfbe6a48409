//! Frames of a video, as pictures in a folder or as a motion JPEG file.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use xc2_edge::{
    engine::{Frames, Picture},
    tasks::caption::{self, Kind},
    vision::image::strip,
};

use super::number::real;

/// The question if none is given, as on the model's card.
pub const QUESTION: &str = "Here are some frames of a video. Describe this video in detail";

/// Which frames to look at.
#[derive(Clone, Debug, Default, Args)]
pub struct FramesArgs {
    /// 2.5 models: look at a video: a folder with frames, a pattern such as 'frames/*.png', or a motion
    /// JPEG file. At most 32 frames are used. To make a folder of frames, one per second:
    /// ffmpeg -i video.mp4 -vf fps=1 frames/%05d.png
    #[arg(
        long,
        value_name = "SOURCE",
        conflicts_with = "images",
        help_heading = "Prompt"
    )]
    pub frames: Option<String>,
    /// Frames per second in SOURCE; about one per second is used.
    #[arg(long, value_name = "RATE", value_parser = rate, default_value_t = 1.0, requires = "frames", help_heading = "Prompt")]
    pub fps: f32,
    /// Do not write a number above each frame.
    #[arg(long, requires = "frames", help_heading = "Prompt")]
    pub no_frame_labels: bool,
}

fn rate(text: &str) -> Result<f32, String> {
    real(text, "0.01 to 1000", |rate| (0.01..=1000.0).contains(&rate))
}

impl FramesArgs {
    /// The frames as one picture, if any are asked for.
    ///
    /// # Errors
    /// If the source cannot be read or has no frames.
    pub fn picture(&self) -> anyhow::Result<Option<Picture>> {
        let Some(source) = &self.frames else {
            return Ok(None);
        };
        let path = Path::new(source);
        let pictures = if path.is_file() {
            self.of_stream(path)?
        } else {
            let files = files(source)?;
            let chosen = strip::frame_numbers(files.len(), self.fps.into());
            chosen
                .into_iter()
                .map(|i| Picture::File(files[i].clone()))
                .collect()
        };
        let found = pictures.len();
        ensure!(
            found > 0,
            "--frames {source}: expected pictures or a motion JPEG file, found no frames"
        );
        Ok(Some(Picture::Frames(Frames {
            pictures,
            labels: !self.no_frame_labels,
        })))
    }

    /// The chosen frames of a motion JPEG file. It is read twice, because which frames are chosen depends on their
    /// number, and all of them may not fit into memory.
    fn of_stream(&self, path: &Path) -> anyhow::Result<Vec<Picture>> {
        let open = || {
            let file = File::open(path);
            let file = file.with_context(|| format!("--frames {}", path.display()))?;
            anyhow::Ok(caption::Frames::new(BufReader::new(file)))
        };
        let mut n_frames = 0;
        for frame in open()? {
            frame.with_context(|| format!("--frames {}", path.display()))?;
            n_frames += 1;
        }
        let chosen = strip::frame_numbers(n_frames, self.fps.into());
        let mut pictures = Vec::with_capacity(chosen.len());
        for (i, frame) in open()?.enumerate() {
            if chosen.contains(&i) {
                pictures.push(Picture::Encoded {
                    name: format!("{}: frame {i}", path.display()),
                    bytes: frame?.into(),
                });
            }
        }
        Ok(pictures)
    }
}

/// The pictures of a folder or of a pattern, in the order of their numbers.
fn files(source: &str) -> anyhow::Result<Vec<PathBuf>> {
    let path = Path::new(source);
    let mut files: Vec<PathBuf> = if path.is_dir() {
        let entries = path.read_dir().with_context(|| source.to_owned())?;
        let entries = entries.map(|entry| entry.map(|entry| entry.path()));
        entries
            .collect::<Result<_, _>>()
            .with_context(|| source.to_owned())?
    } else {
        let matches = glob::glob(source).with_context(|| format!("--frames {source}"))?;
        matches
            .collect::<Result<_, _>>()
            .with_context(|| source.to_owned())?
    };
    files.retain(|file| is_picture(file));
    files.sort_by_cached_key(|file| natural_key(file));
    Ok(files)
}

fn is_picture(file: &Path) -> bool {
    matches!(Kind::of(file), Kind::Picture)
}

/// A key by which `frame2` comes before `frame10`: text and numbers by turns.
fn natural_key(file: &Path) -> Vec<(String, u128)> {
    let name = file.to_string_lossy();
    let mut key = Vec::new();
    let mut rest = &name[..];
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit());
        let (text, tail) = rest.split_at(text.unwrap_or(rest.len()));
        let digits = tail.find(|c: char| !c.is_ascii_digit());
        let (digits, tail) = tail.split_at(digits.unwrap_or(tail.len()));
        key.push((text.to_owned(), digits.parse().unwrap_or(u128::MAX)));
        rest = tail;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_in_the_order_of_their_numbers() {
        let mut names = ["v/f10.png", "v/f9.png", "v/f1.png", "v/e2.png"].map(Path::new);
        names.sort_by_cached_key(|name| natural_key(name));
        assert_eq!(
            names,
            ["v/e2.png", "v/f1.png", "v/f9.png", "v/f10.png"].map(Path::new)
        );
    }
}
