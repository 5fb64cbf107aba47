//! Opening a data file, gzipped or not, and the SHA-256 of what it holds.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::DataError;

const DAMAGED: &str = "download the file again";

/// The decompressed content of a file, hashed as it is read.
pub(crate) struct Source {
    /// The file, for errors.
    pub name: String,
    content: Box<dyn Read>,
    hash: Sha256,
}

impl Source {
    /// Opens a file; whether it is gzipped is told by its first two bytes, not by its name.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(|e| DataError::file(path, e))?);
        let gzipped =
            io::BufRead::fill_buf(&mut file).map_err(|e| DataError::file(path, e))?.starts_with(&[0x1f, 0x8b]);
        let content: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Source { name: path.display().to_string(), content, hash: Sha256::new() })
    }

    /// A gzipped file that is part of this crate.
    pub fn embedded(name: &str, gzipped: &'static [u8]) -> Self {
        Source { name: name.to_string(), content: Box::new(MultiGzDecoder::new(gzipped)), hash: Sha256::new() }
    }

    /// Fills `buffer` unless the content ends before; returns how many bytes were read.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, DataError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(filled)
    }

    /// Reads to the end; returns how many bytes were left.
    pub fn drain(&mut self) -> Result<u64, DataError> {
        let mut buffer = vec![0; 1 << 16];
        let mut left = 0;
        loop {
            match self.fill(&mut buffer)? {
                0 => return Ok(left),
                read => left += read as u64,
            }
        }
    }

    /// SHA-256 of all that was read, in hexadecimal.
    pub fn sha256(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A warning unless the content was read to its end and is the published one.
    pub fn unrecognized(&self, published: &str) -> Option<String> {
        let found = self.sha256();
        (found != published).then(|| {
            format!("{}: unrecognized content, used as it is: SHA-256 {found}, published {published}", self.name)
        })
    }

    /// An error while reading.
    pub fn failed(&self, error: &io::Error) -> DataError {
        DataError::File { path: self.name.clone(), reason: format!("{error}: {DAMAGED}") }
    }

    /// The content is not what it must be, and a new copy would help.
    pub fn wrong(&self, found: String, expected: impl Into<String>) -> DataError {
        DataError::Content { path: self.name.clone(), found, expected: expected.into(), fix: DAMAGED }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// SHA-256 of "abc", from FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn published_content_is_recognized_plain_and_gzipped_and_any_other_is_not() {
        let mut gzipped = GzEncoder::new(Vec::new(), Compression::best());
        gzipped.write_all(b"abc").unwrap();
        let cases: [(Vec<u8>, bool); 3] =
            [(b"abc".into(), true), (gzipped.finish().unwrap(), true), (b"abd".into(), false)];
        for (content, published) in cases {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&content).unwrap();
            let mut source = Source::open(file.path()).unwrap();
            assert_eq!(source.fill(&mut [0; 2]).unwrap(), 2);
            assert_eq!(source.drain().unwrap(), 1);
            assert_eq!(source.sha256() == ABC, published);
            assert_eq!(source.unrecognized(ABC).is_none(), published);
        }
    }
}
