//! Documents turned into other kinds by foreign programs, each in a sandbox of its own: LibreOffice and poppler.

use crate::archive;
use crate::files::{TEMPORARY, Testbed};
use crate::word;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rolegraft_files::temporary_folder;
use rolegraft_suite::sandbox::{Mount, run_once};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Where a program finds its file.
const DOCUMENTS: &str = "/work/documents";
/// Stands for the file's path among a program's words.
const FILE: &str = "{file}";
/// What a PDF is called there.
const PDF: &str = "in.pdf";
/// Settings of the host that the programs look for.
const SETTINGS: [&str; 3] = ["/etc/fonts", "/etc/libreoffice", "/var/cache/fontconfig"];
/// How much of what programs made is kept, in bytes.
const KEPT: u64 = 128 << 20;
/// What programs made, by the digest of what they were given: tasks, trials and checks convert the same documents again and
/// again, and each conversion takes a second.
static MADE: LazyLock<Cache<[u8; 32], Arc<[u8]>, Length>> = LazyLock::new(|| Cache::with_weighter(1024, KEPT, Length));
/// Image formats by their file name's ending, with poppler's option for each.
const IMAGES: [(&str, &str); 6] =
    [("png", "-png"), ("jpg", "-jpeg"), ("jpeg", "-jpeg"), ("ppm", ""), ("pnm", ""), ("pgm", "-gray")];

/// Weighs bytes by their number.
#[derive(Clone)]
struct Length;

impl Weighter<[u8; 32], Arc<[u8]>> for Length {
    fn weight(&self, _: &[u8; 32], made: &Arc<[u8]>) -> u64 {
        made.len() as u64 + 64
    }
}

/// A foreign program that some tasks cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Turns docx and xlsx files into PDF files.
    LibreOffice,
    /// `pdftotext`: the text of a PDF.
    PdfToText,
    /// `pdftoppm`: a PDF's page as an image.
    PdfToPpm,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LibreOffice, Self::PdfToText, Self::PdfToPpm];

    /// The command.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::LibreOffice => "soffice",
            Self::PdfToText => "pdftotext",
            Self::PdfToPpm => "pdftoppm",
        }
    }

    /// What it is started with. LibreOffice asks for large blocks and gives them back, again and again: half of a conversion's
    /// time goes into their pages, unless glibc keeps them.
    fn line(self) -> &'static [&'static str] {
        match self {
            Self::LibreOffice => &[
                "env",
                "MALLOC_MMAP_THRESHOLD_=536870912",
                "MALLOC_TRIM_THRESHOLD_=1073741824",
                "MALLOC_TOP_PAD_=67108864",
                "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
                "soffice",
            ],
            Self::PdfToText => &["pdftotext"],
            Self::PdfToPpm => &["pdftoppm"],
        }
    }

    /// Debian's packages that bring it.
    #[must_use]
    pub fn packages(self) -> &'static str {
        match self {
            Self::LibreOffice => "libreoffice-writer-nogui libreoffice-calc-nogui fonts-liberation",
            Self::PdfToText | Self::PdfToPpm => "poppler-utils",
        }
    }

    /// Whether it is installed where the sandbox sees it.
    #[must_use]
    pub fn installed(self) -> bool {
        ["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|folder| Path::new(folder).join(self.command()).exists())
    }
}

/// Why there is no converted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unconverted {
    /// No program to do it with.
    #[error("`{}` is not installed, or there is no sandbox for it", .0.command())]
    Missing(Program),
    /// The file cannot be read, or the program made nothing of it.
    #[error("the document cannot be converted")]
    Failed,
}

/// What a program prints about a file, or leaves at `left`.
fn run(
    bed: &Testbed,
    program: Program,
    name: &str,
    bytes: &[u8],
    words: &[&str],
    left: Option<&str>,
) -> Result<Arc<[u8]>, Unconverted> {
    let mut given = Sha256::new_with_prefix(program.command());
    for part in words.iter().map(|word| word.as_bytes()).chain([name.as_bytes(), bytes]) {
        given.update(part.len().to_le_bytes());
        given.update(part);
    }
    MADE.get_or_insert_with(&<[u8; 32]>::from(given.finalize()), || {
        run_anew(bed, program, name, bytes, words, left).map(Arc::from)
    })
}

/// Runs a program on a file, alone in a folder of its own.
fn run_anew(
    bed: &Testbed,
    program: Program,
    name: &str,
    bytes: &[u8],
    words: &[&str],
    left: Option<&str>,
) -> Result<Vec<u8>, Unconverted> {
    let missing = Unconverted::Missing(program);
    if !program.installed() {
        return Err(missing);
    }
    let folder = bed.noticed(temporary_folder(TEMPORARY)).map_err(|_| Unconverted::Failed)?;
    bed.noticed(std::fs::write(folder.path().join(name), bytes)).map_err(|_| Unconverted::Failed)?;
    let mut mounts = vec![Mount { from: folder.path(), to: DOCUMENTS, writable: left.is_some() }];
    let settings = SETTINGS.iter().filter(|path| Path::new(path).is_dir());
    mounts.extend(settings.map(|path| Mount { from: Path::new(path), to: path, writable: false }));
    let path = format!("{DOCUMENTS}/{name}");
    let line: Vec<&str> =
        program.line().iter().copied().chain(words.iter().map(|w| if *w == FILE { &path } else { *w })).collect();
    let once = || run_once(&mounts, "/work", &line, LIMIT).map_err(|_| missing);
    // A program of ours that is killed says nothing of the file, unless it is each time.
    let done = once().and_then(|done| if done.killed { once() } else { Ok(done) })?;
    if done.status != Some(0) {
        return Err(Unconverted::Failed);
    }
    let Some(left) = left else { return Ok(done.stdout) };
    // What lies there was written by a program that had read a hostile file: no link is followed.
    Testbed::at(folder.path()).and_then(|made| made.read(Path::new(left))).map_err(|_| Unconverted::Failed)
}

/// Upstream's `convert_to_pdf`, which reports success whatever becomes of it.
pub(crate) fn to_pdf(bed: &Testbed, from: &str, to: &str) -> Result<(), Unconverted> {
    let failed = Unconverted::Failed;
    let (from, target) = (bed.resolve(from).ok_or(failed)?, bed.resolve(to).ok_or(failed)?);
    let name = from.file_name().and_then(|n| n.to_str()).ok_or(failed)?;
    let made = format!("{}.pdf", from.file_stem().unwrap_or_default().to_string_lossy());
    let bytes = bed.read(&from).map_err(|_| failed)?;
    if archive::check(&bytes).is_err_and(|reason| archive::is_refusal(&reason)) {
        return Err(failed);
    }
    let words =
        ["-env:UserInstallation=file:///tmp/profile", "--headless", "--convert-to", "pdf", FILE, "--outdir", DOCUMENTS];
    let pdf = run(bed, Program::LibreOffice, name, &bytes, &words, Some(&made))?;
    // Upstream converts into the target's folder and renames there, if the target is to be a PDF.
    let beside = target.with_file_name(&made);
    let target = match to.ends_with(".pdf") {
        true if bed.is_dir(&target) => target.join(&made),
        true => target,
        false => beside,
    };
    bed.make_parent(&target).and_then(|()| bed.write(&target, &pdf)).map_err(|_| failed)
}

/// The text of all pages, one after another.
pub(crate) fn pdf_text(bed: &Testbed, path: &Path) -> Result<String, Unconverted> {
    let bytes = bed.read(path).map_err(|_| Unconverted::Failed)?;
    let words = ["-q", "-raw", "-enc", "UTF-8", "-eol", "unix", FILE, "-"];
    let text = run(bed, Program::PdfToText, PDF, &bytes, &words, None)?;
    Ok(String::from_utf8_lossy(&text).split('\u{c}').map(str::trim_end).collect())
}

/// Upstream's `pdf.convert_to_image`: the first page at 72 dots per inch.
pub(crate) fn to_image(bed: &Testbed, from: &str, to: &str) -> Result<String, Unconverted> {
    if bed.resolve(from).is_some_and(|path| bed.is_dir(&path)) {
        return Ok(format!("Failed: '{from}' is no file"));
    }
    let bytes = bed.resolve(from).and_then(|path| bed.read(&path).ok());
    let Some(bytes) = bytes.filter(|b| b[..b.len().min(1024)].windows(4).any(|w| w == b"%PDF")) else {
        return Ok(cannot_open(from));
    };
    let ending = to.rsplit_once('.').map(|(_, ending)| ending.to_lowercase()).unwrap_or_default();
    let Some((_, option)) = IMAGES.iter().find(|(name, _)| ending == *name) else {
        return Ok(format!(
            "Failed: Image format {ending} not in ({})",
            IMAGES.map(|(name, _)| format!("'{name}'")).join(", ")
        ));
    };
    let mut words = vec!["-q", "-r", "72", "-f", "1", "-l", "1", "-singlefile", FILE];
    words.extend((!option.is_empty()).then_some(*option));
    let image = match run(bed, Program::PdfToPpm, PDF, &bytes, &words, None) {
        Ok(image) if !image.is_empty() => image,
        Ok(_) | Err(Unconverted::Failed) => return Ok(cannot_open(from)),
        Err(missing) => return Err(missing),
    };
    Ok(match bed.resolve(to).and_then(|to| bed.write(&to, &image).ok()) {
        Some(()) => "Success".into(),
        None => format!("Failed: cannot open file '{to}': No such file or directory"),
    })
}

/// Upstream's `pdf.convert_to_word`, but for the text alone, a paragraph a line: upstream keeps the layout.
pub(crate) fn to_word(bed: &Testbed, from: &str, to: &str) -> Result<String, Unconverted> {
    let Some(path) = bed.resolve(from) else { return Ok(cannot_open(from)) };
    let text = match pdf_text(bed, &path) {
        Err(Unconverted::Failed) => return Ok(cannot_open(from)),
        other => other?,
    };
    let document = word::document(text.lines());
    Ok(match bed.resolve(to).zip(document.ok()).and_then(|(to, document)| bed.write(&to, &document).ok()) {
        Some(()) => "Success".into(),
        None => format!("Failed: [Errno 2] No such file or directory: '{to}'"),
    })
}

fn cannot_open(path: &str) -> String {
    format!("Failed: Failed to open file '{path}'.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::print_stderr)]
    fn a_document_is_converted_once() {
        if !Program::ALL.iter().all(|program| program.installed()) || rolegraft_suite::Sandbox::start().is_err() {
            eprintln!("skipped: LibreOffice, poppler or a sandbox is missing");
            return;
        }
        let bed = Testbed::empty("", false).unwrap();
        for (name, paragraph) in [("a.docx", "one"), ("b.docx", "two")] {
            bed.write(Path::new(name), &word::document([paragraph].into_iter()).unwrap()).unwrap();
        }
        let [first, again, other] =
            [("a.docx", "1.pdf"), ("a.docx", "2.pdf"), ("b.docx", "3.pdf")].map(|(from, to)| {
                to_pdf(&bed, from, to).unwrap();
                (bed.read(Path::new(to)).unwrap(), pdf_text(&bed, Path::new(to)).unwrap())
            });
        // A second conversion would have got another identity.
        assert!(first == again);
        assert_eq!((first.1.as_str(), other.1.as_str()), ("one", "two"));
        // What failed is tried again.
        bed.write(Path::new("c.pdf"), b"none").unwrap();
        for _ in 0..2 {
            assert_eq!(pdf_text(&bed, Path::new("c.pdf")), Err(Unconverted::Failed));
        }
    }
}
