//! The IDX format of MNIST: a magic number, the sizes as big-endian 32-bit integers, then unsigned bytes.

use crate::DataError;
use crate::source::Source;

/// IDX of unsigned bytes in one dimension: labels.
pub(crate) const LABELS: u32 = 0x0000_0801;
/// IDX of unsigned bytes in three dimensions: images.
pub(crate) const IMAGES: u32 = 0x0000_0803;

/// Reads a whole IDX file and hands its first `limit` records to `each`; returns how many the file holds.
///
/// `record` is the expected size of one record after the first dimension: empty for labels, `[28, 28]` for images.
pub(crate) fn read(
    source: &mut Source,
    magic: u32,
    record: &[usize],
    limit: usize,
    mut each: impl FnMut(&[u8]),
) -> Result<usize, DataError> {
    let mut header = vec![0; 8 + 4 * record.len()];
    let read = source.fill(&mut header)?;
    let word =
        |position: usize| u32::from_be_bytes(header[4 * position..4 * position + 4].try_into().expect("4 bytes"));
    if read >= 4 && word(0) != magic {
        let hint = match word(0) {
            LABELS => " (a file of labels)",
            IMAGES => " (a file of images)",
            _ => "",
        };
        return Err(source.wrong(format!("magic number 0x{:08x}{hint}", word(0)), format!("0x{magic:08x}")));
    }
    if read < header.len() {
        return Err(source.wrong(format!("{read} bytes"), format!("a header of {} bytes", header.len())));
    }
    let count = word(1) as usize;
    let found: Vec<usize> = (0..record.len()).map(|dimension| word(2 + dimension) as usize).collect();
    if found != record {
        return Err(source.wrong(format!("records of {found:?}"), format!("{record:?}")));
    }

    let size: usize = record.iter().product();
    let expected = || format!("{} ({count} records of {size}, as its header says)", count as u64 * size as u64);
    let mut buffer = vec![0; size];
    for position in 0..count {
        let read = source.fill(&mut buffer)?;
        if read < size {
            let bytes = position as u64 * size as u64 + read as u64;
            return Err(source.wrong(format!("{bytes} bytes after the header"), expected()));
        }
        if position < limit {
            each(&buffer);
        }
    }
    match source.drain()? {
        0 => Ok(count),
        more => {
            let bytes = count as u64 * size as u64 + more;
            Err(source.wrong(format!("{bytes} bytes after the header"), expected()))
        }
    }
}
