//! How the parameters of an affine map lie in memory, and what maps read and write: panels and tables of offsets.

/// Outputs side by side in a panel: one AVX-512 vector, two of AVX2. The same for every instruction set, so that the
/// order of the parameters, and with it the noise that each one gets, does not depend on the machine.
pub const PANEL: usize = 16;

/// Numbers that must be readable after the last of a buffer, because kernels load whole vectors.
pub const SLACK: usize = PANEL;

/// The parameters of y = W x + b, or a gradient of them, as panels.
///
/// A panel holds [`PANEL`] outputs, the last one what remains, as a matrix `[depth, width]`: for each input the weights of
/// the panel's outputs side by side, and the biases as the last row. Panels follow one another without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panels {
    /// Rows of each panel: inputs, and one for the bias if there is one.
    pub depth: usize,
    /// Outputs over all panels.
    pub outputs: usize,
}

impl Panels {
    /// Numbers in all panels.
    pub fn len(&self) -> usize {
        self.depth.checked_mul(self.outputs).expect("fewer than 2^64 numbers")
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers up to the end of the last row's vector, which in a narrow last panel lies up to [`SLACK`] behind its end.
    pub fn reach(&self) -> usize {
        self.len() + self.outputs.next_multiple_of(PANEL) - self.outputs
    }

    /// Where panel `panel` begins.
    #[inline(always)]
    pub fn start(&self, panel: usize) -> usize {
        panel * PANEL * self.depth
    }

    /// Outputs in panel `panel`.
    #[inline(always)]
    pub fn width(&self, panel: usize) -> usize {
        (self.outputs - panel * PANEL).min(PANEL)
    }

    /// Where the number of `row` and `output` lies.
    pub fn index(&self, row: usize, output: usize) -> usize {
        let panel = output / PANEL;
        self.start(panel) + row * self.width(panel) + output % PANEL
    }
}

/// One row of a product: offsets of its first input, its first output and, where outputs are masked, its first mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Into the inputs.
    pub input: u32,
    /// Into the outputs.
    pub output: u32,
    /// Into the values that mask the outputs.
    pub mask: u32,
}

/// Rows, with the largest offset of each kind, so that bounds are checked once and not per row.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
    last: Row,
}

impl FromIterator<Row> for Rows {
    fn from_iter<T: IntoIterator<Item = Row>>(rows: T) -> Self {
        let mut all = Rows::default();
        all.refill(rows.into_iter());
        all
    }
}

impl Rows {
    /// No rows yet, and memory for `count`.
    pub fn with_capacity(count: usize) -> Self {
        Rows { rows: Vec::with_capacity(count), last: Row::default() }
    }

    /// Takes other rows.
    pub fn refill(&mut self, rows: impl Iterator<Item = Row>) {
        self.rows.clear();
        self.last = Row::default();
        for row in rows {
            self.last.input = self.last.input.max(row.input);
            self.last.output = self.last.output.max(row.output);
            self.last.mask = self.last.mask.max(row.mask);
            self.rows.push(row);
        }
    }

    /// The first `count` rows.
    #[inline(always)]
    pub fn first(&self, count: usize) -> RowsRef<'_> {
        RowsRef { rows: &self.rows[..count], last: self.last }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Some of the rows of [`Rows`].
#[derive(Clone, Copy, Debug)]
pub struct RowsRef<'a> {
    rows: &'a [Row],
    last: Row,
}

impl<'a> RowsRef<'a> {
    /// The rows.
    #[inline(always)]
    pub fn rows(&self) -> &'a [Row] {
        self.rows
    }

    /// At least the largest offset of each kind.
    #[inline(always)]
    pub fn last(&self) -> Row {
        self.last
    }
}

/// A run of inputs that a row reads: `len` numbers from `offset` on, counted from the row's first input, and the weights
/// that they are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub offset: u32,
    /// How many numbers.
    pub len: u32,
    /// The row of the weights' panels that belongs to the first.
    pub weight: u32,
}

impl Segment {
    /// The first `len` numbers and weights.
    pub fn first(len: usize) -> Self {
        Segment { offset: 0, len: offset(len), weight: 0 }
    }
}

/// Segments that follow one another without a gap, in the inputs and in the weights, as one.
pub fn joined(segments: impl IntoIterator<Item = Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for segment in segments {
        match joined.last_mut() {
            Some(last) if (last.offset + last.len, last.weight + last.len) == (segment.offset, segment.weight) => {
                last.len += segment.len;
            }
            _ => joined.push(segment),
        }
    }
    joined
}

/// An offset within a block. Blocks are a few megabytes; a single example would have to have four thousand million
/// numbers for it not to fit.
pub fn offset(offset: usize) -> u32 {
    u32::try_from(offset).expect("a block of examples has fewer than 2^32 numbers")
}

/// One position at which an affine map was applied: offsets of its first input and its first output gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Into the inputs.
    pub input: u32,
    /// Into the gradients of the outputs.
    pub gradient: u32,
}

/// How the examples of a block lie in a buffer: channels last, each image in a frame: zeros around values, and around gradients
/// what nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Height, width and channels of the image. A vector is an image of one pixel, a sequence one pixel wide.
    pub grid: Grid,
    /// Rows of the frame above.
    pub top: usize,
    /// Columns of the frame at the left.
    pub left: usize,
    /// Numbers from a row to the next.
    pub row: usize,
    /// Numbers from an example to the next.
    pub example: usize,
}

/// Height, width and channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Height; time, in a sequence.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Grid {
    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pixels.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }
}

/// Zeros around an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margins {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns at the left.
    pub left: usize,
    /// Columns at the right.
    pub right: usize,
}

impl Frame {
    /// A frame with these margins. Examples are an odd number of cache lines apart, so that the same pixel of many
    /// examples does not fall into a few sets of the cache.
    pub fn new(grid: Grid, margins: Margins) -> Self {
        let row = (margins.left + grid.w + margins.right) * grid.c;
        let lines = ((margins.top + grid.h + margins.bottom) * row).div_ceil(PANEL);
        Frame { grid, top: margins.top, left: margins.left, row, example: (lines | 1) * PANEL }
    }

    /// Where the pixel of row `y` and column `x` begins, counted from the example's first number.
    #[inline(always)]
    pub fn at(&self, y: usize, x: usize) -> usize {
        (self.top + y) * self.row + (self.left + x) * self.grid.c
    }

    /// Numbers that a buffer for `examples` examples takes, [`SLACK`] included.
    pub fn buffer(&self, examples: usize) -> usize {
        examples * self.example + SLACK
    }
}
