//! Large parts of an answer's body, handed to hyper a piece at a time, so that it can be seen that the peer goes on taking
//! them. Knows nothing of deadlines.
//!
//! Invariant: the bytes are the same, in the same order, and those of [`Bytes`] are not copied.

use std::io::IoSlice;

use hyper::body::{Buf, Bytes};

/// The longest piece. hyper takes further ones until it has some 400 KiB in its buffer.
const LONGEST: usize = 64 << 10;

/// What is left of a part that was too long for one piece.
pub(super) struct Rest<D>(Option<D>);

impl<D> Default for Rest<D> {
    fn default() -> Self {
        Rest(None)
    }
}

impl<D: Buf> Rest<D> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Buf::remaining)
    }

    /// The first piece of a part. There is no rest of another one.
    pub(super) fn first_piece(&mut self, mut part: D) -> Piece<D> {
        if part.remaining() <= LONGEST {
            return Piece::Whole(part);
        }
        let piece = Piece::Slice(part.copy_to_bytes(LONGEST));
        self.0 = Some(part);
        piece
    }

    pub(super) fn next_piece(&mut self) -> Option<Piece<D>> {
        self.0.take().map(|part| self.first_piece(part))
    }
}

/// A piece of a part, or all of it.
pub(super) enum Piece<D> {
    Whole(D),
    Slice(Bytes),
}

impl<D: Buf> Buf for Piece<D> {
    fn remaining(&self) -> usize {
        match self {
            Piece::Whole(data) => data.remaining(),
            Piece::Slice(bytes) => bytes.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Piece::Whole(data) => data.chunk(),
            Piece::Slice(bytes) => bytes.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Piece::Whole(data) => data.chunks_vectored(slices),
            Piece::Slice(bytes) => bytes.chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Piece::Whole(data) => data.advance(count),
            Piece::Slice(bytes) => bytes.advance(count),
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        match self {
            Piece::Whole(data) => data.copy_to_bytes(count),
            Piece::Slice(bytes) => bytes.copy_to_bytes(count),
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn the_pieces_of_a_part_are_all_of_it_in_order() {
        for length in [0, 1, LONGEST, LONGEST + 1, 3 * LONGEST, 1_000_000] {
            let bytes: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            // Of two chunks.
            let mut part: VecDeque<u8> = bytes.iter().skip(length / 3).copied().collect();
            bytes.iter().take(length / 3).rev().for_each(|byte| part.push_front(*byte));
            let mut rest = Rest::default();
            let mut next = Some(rest.first_piece(part));
            let (mut left, mut got) = (length, Vec::new());
            while let Some(mut piece) = next {
                assert!(piece.remaining() <= LONGEST && (piece.remaining() > 0 || length == 0));
                left -= piece.remaining();
                assert_eq!((rest.len(), rest.is_empty()), (left, left == 0));
                while piece.has_remaining() {
                    let chunk = &piece.chunk()[..piece.chunk().len().min(1_000)];
                    got.extend_from_slice(chunk);
                    let count = chunk.len();
                    piece.advance(count);
                }
                next = rest.next_piece();
            }
            assert!(got == bytes && left == 0, "{length}");
        }
    }
}
