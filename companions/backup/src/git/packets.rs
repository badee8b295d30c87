//! The packets that git's protocol is made of.
//! <https://git-scm.com/docs/protocol-common#_pkt_line_format>

use blackwater_http::Stream;
use bytes::{Bytes, BytesMut};
use gix_packetline::PacketLineRef;
use gix_packetline::decode::{Stream as Decoded, streaming};

use crate::fault::Fault;

/// A packet.
#[derive(Debug)]
pub(super) enum Packet {
    Data(Bytes),
    Delimiter,
    Flush,
}

/// The packets of an answer.
#[derive(Debug)]
pub(super) struct Packets {
    answer: Stream,
    waiting: BytesMut,
}

impl Packets {
    pub(super) fn of(answer: Stream) -> Self {
        Self { answer, waiting: BytesMut::new() }
    }

    /// The next one. An answer that ends before a flush was cut.
    pub(super) async fn next(&mut self) -> Result<Packet, Fault> {
        loop {
            let decoded =
                streaming(&self.waiting).map_err(|error| Fault::form(&format!("its server's answer: {error}")))?;
            if let Decoded::Complete { line, bytes_consumed } = decoded {
                let kind = match line {
                    PacketLineRef::Data(_) => None,
                    PacketLineRef::Delimiter => Some(Packet::Delimiter),
                    PacketLineRef::Flush | PacketLineRef::ResponseEnd => Some(Packet::Flush),
                };
                let data = self.waiting.split_to(bytes_consumed).freeze();
                if let Some(packet) = kind {
                    return Ok(packet);
                }
                let data = data.slice(4..);
                return match data.strip_prefix(b"ERR ") {
                    Some(why) => Err(Fault::form(&format!("its server says: {}", String::from_utf8_lossy(why).trim()))),
                    None => Ok(Packet::Data(data)),
                };
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.waiting.extend_from_slice(&chunk),
                None => return Err(Fault::cut("its server's answer")),
            }
        }
    }
}

/// A line as a packet.
pub(super) fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}
