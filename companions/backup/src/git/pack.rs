//! Whether a pack came whole.
//! <https://git-scm.com/docs/gitformat-pack>

use sha1::{Digest, Sha1};

const HASH: usize = 20;

/// A look at a pack as it goes by: its first bytes, and its last ones, which are the hash of all before them.
#[derive(Default)]
pub(crate) struct Seal {
    head: Vec<u8>,
    hash: Sha1,
    /// The last bytes, which may be the hash of those before.
    tail: Vec<u8>,
}

impl Seal {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let wanted = 12 - self.head.len();
        self.head.extend_from_slice(&bytes[..wanted.min(bytes.len())]);
        let known = self.tail.len() + bytes.len();
        let hashed = known.saturating_sub(HASH);
        let of_tail = hashed.min(self.tail.len());
        self.hash.update(&self.tail[..of_tail]);
        self.tail.drain(..of_tail);
        let of_bytes = hashed - of_tail;
        self.hash.update(&bytes[..of_bytes]);
        self.tail.extend_from_slice(&bytes[of_bytes..]);
    }

    /// What is wrong with it, if it is not whole.
    pub(crate) fn end(self) -> Result<(), &'static str> {
        let Ok(head) = <[u8; 12]>::try_from(self.head) else { return Err("it is too short") };
        if !head.starts_with(b"PACK\0\0\0\x02") {
            return Err("it does not begin as a pack of the second version");
        }
        match self.hash.finalize().as_slice() == self.tail {
            true => Ok(()),
            false => Err("its checksum differs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_whole_only_with_the_hash_of_all_of_it() {
        let mut pack = b"PACK\0\0\0\x02\0\0\0\x07 and what is in it".to_vec();
        pack.extend_from_slice(&Sha1::digest(&pack));
        for size in [1, 7, 19, 20, 21, 1000] {
            let mut seal = Seal::default();
            pack.chunks(size).for_each(|piece| seal.update(piece));
            assert_eq!(seal.end(), Ok(()), "in pieces of {size}");
        }
        for end in [5, 12, 30, pack.len() - 1] {
            let mut seal = Seal::default();
            seal.update(&pack[..end]);
            assert!(seal.end().is_err(), "{end} bytes");
        }
        let mut seal = Seal::default();
        pack[14] ^= 1;
        seal.update(&pack);
        assert_eq!(seal.end(), Err("its checksum differs"));
    }
}
