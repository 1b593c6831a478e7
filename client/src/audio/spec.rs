//! SPEC: the text that names an audio end, as in `--audio file:in.wav,out.wav`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use yodel_media::AudioEnd;

use super::AudioError;
use super::file::FileEnd;
use super::null::Null;
use super::tone::Tone;

/// What a SPEC names.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// The system's sound card.
    Default,
    /// A certain sound card.
    Device(String),
    /// `IN` is said once from the answer on, `OUT` is what was heard.
    File {
        /// Any WAV; `None` (empty in the text) says nothing.
        input: Option<PathBuf>,
        /// 48 kHz mono 16-bit.
        output: Option<PathBuf>,
    },
    /// A file descriptor of the caller.
    Pipe(i32),
    /// A steady tone, Hz.
    Tone(f32),
    /// Silence both ways.
    Null,
}

impl FromStr for Spec {
    type Err = AudioError;

    fn from_str(text: &str) -> Result<Spec, AudioError> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("default", None) => Ok(Spec::Default),
            ("null", None) => Ok(Spec::Null),
            ("device", Some(id)) if !id.is_empty() => Ok(Spec::Device(id.to_owned())),
            ("pipe", Some(fd)) => match fd.parse() {
                Ok(fd) if fd >= 0 => Ok(Spec::Pipe(fd)),
                _ => Err(AudioError::Spec("pipe: wants a file descriptor")),
            },
            ("tone", Some(hertz)) => match hertz.parse::<f32>() {
                Ok(hertz) if (20.0..=20_000.0).contains(&hertz) => Ok(Spec::Tone(hertz)),
                _ => Err(AudioError::Spec("tone: wants 20 to 20000 Hz")),
            },
            ("file", Some(paths)) => {
                let (input, output) = paths.split_once(',').unwrap_or((paths, ""));
                let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
                match (path(input), path(output)) {
                    (None, None) => Err(AudioError::Spec("file: wants IN.wav[,OUT.wav]")),
                    (input, output) => Ok(Spec::File { input, output }),
                }
            }
            _ => Err(AudioError::Spec(
                "one of default, device:ID, file:IN.wav[,OUT.wav], pipe:FD, tone:HZ, null",
            )),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Default => f.write_str("default"),
            Spec::Device(id) => write!(f, "device:{id}"),
            Spec::Pipe(fd) => write!(f, "pipe:{fd}"),
            Spec::Tone(hertz) => write!(f, "tone:{hertz}"),
            Spec::Null => f.write_str("null"),
            Spec::File { input, output } => {
                f.write_str("file:")?;
                if let Some(input) = input {
                    write!(f, "{}", input.display())?;
                }
                if let Some(output) = output {
                    write!(f, ",{}", output.display())?;
                }
                Ok(())
            }
        }
    }
}

impl Spec {
    /// With relative paths made absolute below `folder`: they are the caller's, not the daemon's.
    pub fn below(self, folder: &Path) -> Spec {
        match self {
            Spec::File { input, output } => {
                let join = |path: Option<PathBuf>| path.map(|path| folder.join(path));
                Spec::File { input: join(input), output: join(output) }
            }
            Spec::Default | Spec::Device(_) | Spec::Pipe(_) | Spec::Tone(_) | Spec::Null => self,
        }
    }

    /// Whether [`open`](Self::open) would do, as far as can be said without writing anything.
    ///
    /// # Errors
    /// As `open`.
    pub fn check(&self) -> Result<(), AudioError> {
        let Spec::File { input, output } = self else { return self.open(1).map(drop) };
        FileEnd::open(input.as_deref(), None)?;
        let folder = output.as_deref().and_then(Path::parent).filter(|folder| *folder != Path::new(""));
        match folder {
            Some(folder) if !folder.is_dir() => Err(AudioError::File {
                path: folder.display().to_string(),
                reason: "is no folder".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Opens the end for call number `call` (from 1) of this SPEC: from the second on, `OUT` has the number in its
    /// name.
    ///
    /// # Errors
    /// `File`, and `Later` for ends that this version lacks.
    pub fn open(&self, call: u32) -> Result<Box<dyn AudioEnd>, AudioError> {
        match self {
            Spec::Default => Err(AudioError::Later("a sound card")),
            Spec::Device(_) => Err(AudioError::Later("device:")),
            Spec::Pipe(_) => Err(AudioError::Later("pipe:")),
            Spec::Tone(hertz) => Ok(Box::new(Tone::new(*hertz))),
            Spec::Null => Ok(Box::new(Null)),
            Spec::File { input, output } => {
                let output = output.as_deref().map(|path| numbered(path, call));
                Ok(Box::new(FileEnd::open(input.as_deref(), output.as_deref())?))
            }
        }
    }
}

/// `OUT.wav` for the first call, `OUT-2.wav` for the second, and so on.
pub fn numbered(path: &Path, call: u32) -> PathBuf {
    if call <= 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{call}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_every_kind() {
        for text in [
            "default",
            "null",
            "device:hw:0,1",
            "pipe:3",
            "tone:440",
            "file:in.wav",
            "file:in.wav,out.wav",
            "file:,out.wav",
            "file:/a b/c.wav,/d:e.wav",
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), text);
        }
        for text in [
            "", "defaults", "null:", "device:", "pipe:x", "pipe:-1", "tone:", "tone:0", "tone:NaN", "file:",
            "file:,",
        ] {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_second_call_gets_a_name_of_its_own() {
        assert_eq!(numbered(Path::new("/x/out.wav"), 1), Path::new("/x/out.wav"));
        assert_eq!(numbered(Path::new("/x/out.wav"), 2), Path::new("/x/out-2.wav"));
        assert_eq!(numbered(Path::new("out"), 3), Path::new("out-3"));
        assert_eq!(numbered(Path::new("a.b/out.x.wav"), 12), Path::new("a.b/out.x-12.wav"));
    }

    #[test]
    fn relative_paths_are_the_callers() {
        let spec: Spec = "file:in.wav,/abs/out.wav".parse().unwrap();
        assert_eq!(spec.below(Path::new("/home/a")).to_string(), "file:/home/a/in.wav,/abs/out.wav");
    }

    #[test]
    fn ends_of_later_versions_say_so() {
        for text in ["default", "device:x", "pipe:0"] {
            let error = text.parse::<Spec>().unwrap().open(1).err().unwrap();
            assert!(error.to_string().contains("comes later"), "{error}");
        }
        assert!("null".parse::<Spec>().unwrap().open(1).is_ok());
        assert!("file:absent.wav".parse::<Spec>().unwrap().open(1).is_err());
        for (text, usable) in [
            ("null", true),
            ("default", false),
            ("file:absent.wav", false),
            ("file:,not-made-by-a-check.wav", true),
            ("file:,/absent/out.wav", false),
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().check().is_ok(), usable, "{text}");
        }
        assert!(!Path::new("not-made-by-a-check.wav").exists());
    }
}
