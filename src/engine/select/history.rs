//! What became of the last pictures, so that packets that come late follow the others of theirs.
//!
//! Owned by a selector. Of fixed size; a picture is named by its RTP timestamp, which all its
//! packets share.

use super::{LayerTarget, is_after};
use crate::limits::PICTURES_REMEMBERED;

/// One picture.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Picture {
    pub(super) timestamp: u32,
    /// Taken from its picture id.
    pub(super) id_offset: u16,
    /// Highest temporal layer that goes out from it on.
    pub(super) temporal: u8,
    /// Highest spatial layer that goes out of it.
    pub(super) top: u8,
    /// Spatial layers of which a packet was seen, one bit each.
    pub(super) decided: u8,
    /// Those of them that go out.
    pub(super) taken: u8,
    /// It is left out and the ids behind it close up.
    pub(super) closes: bool,
    /// Nothing was left out until then.
    pub(super) whole: bool,
}

impl Picture {
    /// One that went out whole as far as it came, as all before it: its lowest layer.
    pub(super) fn whole(timestamp: u32, id_offset: u16, layers: LayerTarget) -> Self {
        Self {
            timestamp,
            id_offset,
            temporal: layers.temporal,
            top: layers.spatial,
            decided: 1,
            taken: 1,
            closes: false,
            whole: true,
        }
    }

    /// Taken from the id of the picture behind it.
    pub(super) fn offset_behind(&self) -> u16 {
        self.id_offset.wrapping_add(u16::from(self.closes))
    }
}

/// The last pictures.
#[derive(Debug, Default)]
pub(super) struct History {
    pictures: [Picture; PICTURES_REMEMBERED],
    /// The place of the newest by timestamp.
    newest: usize,
    /// The next place to be taken.
    next: usize,
}

impl History {
    /// Begins anew behind `before`.
    pub(super) fn begin(&mut self, before: Picture) {
        self.pictures = [before; PICTURES_REMEMBERED];
        self.newest = 0;
        self.next = 1;
    }

    /// The newest picture.
    pub(super) fn newest(&self) -> Picture {
        self.pictures.get(self.newest).copied().unwrap_or_default()
    }

    /// The picture with that timestamp.
    pub(super) fn find(&self, timestamp: u32) -> Option<Picture> {
        let newest = self.newest();
        if newest.timestamp == timestamp {
            return Some(newest);
        }
        self.pictures.iter().find(|picture| picture.timestamp == timestamp).copied()
    }

    /// A picture that comes only now, behind newer ones: as the one before it in time, or the oldest
    /// that is remembered.
    pub(super) fn late(&self, timestamp: u32) -> Picture {
        let age = |picture: &&Picture| timestamp.wrapping_sub(picture.timestamp);
        let earlier = self.pictures.iter().filter(|p| is_after(timestamp, p.timestamp));
        let base = earlier.min_by_key(age).map(|p| Picture { id_offset: p.offset_behind(), ..*p });
        let oldest = || self.pictures.iter().max_by_key(age_before(self.newest().timestamp));
        let base = base.or_else(|| oldest().copied()).unwrap_or_default();
        Picture { timestamp, decided: 0, taken: 0, closes: false, ..base }
    }

    /// Notes what became of a picture, in the place of the oldest where it is not known yet.
    pub(super) fn put(&mut self, picture: Picture) {
        let newer = is_after(picture.timestamp, self.newest().timestamp);
        let known = self.pictures.iter().position(|p| p.timestamp == picture.timestamp);
        if self.next == self.newest {
            // Many late ones in a row must not take its place.
            self.next = (self.next + 1) % PICTURES_REMEMBERED;
        }
        let place = known.unwrap_or(self.next);
        if let Some(slot) = self.pictures.get_mut(place) {
            *slot = picture;
        }
        if known.is_none() {
            self.next = (self.next + 1) % PICTURES_REMEMBERED;
        }
        if newer {
            self.newest = place;
        }
    }
}

fn age_before(newest: u32) -> impl Fn(&&Picture) -> u32 {
    move |picture| newest.wrapping_sub(picture.timestamp)
}
