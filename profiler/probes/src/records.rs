//! Records as they come through the ring buffer.

use profiler_common::{RECORD_HEADER, RECORD_POINTS, Seen, Turn, point::PlaceId};

use super::object::Loaded;

/// One point of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawSeen {
    /// When, ns.
    pub at_ns: u64,
    /// The point, and its device.
    pub point: PlaceId,
    /// Number of the holder's role.
    pub role: u8,
    /// CPU.
    pub cpu: u16,
    /// Current thread.
    pub tid: u32,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Phase and configuration that it belongs to.
    pub turn: Turn,
    /// Points of the record, in order.
    pub points: Vec<RawSeen>,
}

impl RawRecord {
    /// Reads what [`profiler_common::Record`] lays out; `None` if the bytes do not fit together.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (turn, len) = (Turn::from_bytes(bytes.get(8..12)?.try_into().ok()?), word(12)? as usize);
        let body = bytes.get(RECORD_HEADER..)?;
        if len > RECORD_POINTS || body.len() < len * size_of::<Seen>() {
            return None;
        }
        let points = body[..len * size_of::<Seen>()]
            .chunks_exact(size_of::<Seen>())
            .map(|seen| {
                // SAFETY: there are enough bytes, any of which make a value; its alignment is not assumed.
                let seen = unsafe { seen.as_ptr().cast::<Seen>().read_unaligned() };
                RawSeen { at_ns: seen.at_ns, point: seen.point, role: seen.role(), cpu: seen.cpu(), tid: seen.tid }
            })
            .collect();
        Some(Self { turn, points })
    }
}

impl Loaded {
    /// All records that wait in the ring buffer; unreadable ones are counted in the second place.
    ///
    #[must_use]
    pub fn take_records(&mut self, into: &mut Vec<RawRecord>) -> u64 {
        let mut unreadable = 0;
        while let Some(item) = self.ring.next() {
            match RawRecord::parse(&item) {
                Some(record) => into.push(record),
                None => unreadable += 1,
            }
        }
        unreadable
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::point::Point;
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(record: &RawRecord) -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend((record.turn.epoch() as u16).to_ne_bytes());
        bytes.extend([record.turn.configuration(), 0]);
        bytes.extend((record.points.len() as u32).to_ne_bytes());
        for seen in &record.points {
            bytes.extend(seen.at_ns.to_ne_bytes());
            bytes.extend(seen.point.raw().to_ne_bytes());
            bytes.extend(Seen::marks(seen.role, seen.cpu.into()).to_ne_bytes());
            bytes.extend(seen.tid.to_ne_bytes());
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(epoch: u16, configuration: u8, raw in prop::collection::vec((any::<u64>(), any::<u16>(), 0u8..8, 0u16..8192, any::<u32>()), 0..RECORD_POINTS)) {
            let seen = |(at_ns, point, role, cpu, tid)| RawSeen { at_ns, point: PlaceId::from_raw(point), role, cpu, tid };
            let points = raw.into_iter().map(seen).collect();
            let record = RawRecord { turn: Turn::new(epoch, configuration), points };
            prop_assert_eq!(RawRecord::parse(&bytes_of(&record)), Some(record));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = RawRecord::parse(&bytes);
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused() {
        let record = RawRecord {
            turn: Turn::new(1, 0),
            points: vec![RawSeen { at_ns: 1, point: PlaceId::fixed(Point::Send), role: 0, cpu: 0, tid: 1 }],
        };
        let bytes = bytes_of(&record);
        assert_eq!(RawRecord::parse(&bytes[..bytes.len() - 1]), None);
    }
}
