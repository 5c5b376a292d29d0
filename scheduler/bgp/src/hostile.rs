//! Doors for what must bear any input: fuzz targets and property tests go in here.
use crate::{
    Family, Peering,
    frame::{self, Kind},
    open,
    session::{Session, State},
};
use bytes::BytesMut;

fn peering(family: Family) -> Peering {
    Peering {
        local_as: 65001,
        identifier: [10, 0, 0, 1].into(),
        family,
        peer: [192, 0, 2, 1].into(),
        port: 179,
        source: None,
        remote_as: 65010,
        key: None,
        hold: 90,
        restart: 120,
    }
}

/// A peer that sends these bytes: the first one chooses how far the session is by then. Gives how many messages were taken.
pub fn peer(bytes: &[u8]) -> usize {
    let Some((choice, rest)) = bytes.split_first() else { return 0 };
    let family = if choice & 1 == 0 { Family::V4 } else { Family::V6 };
    let mut session = Session::new(peering(family));
    let mut read = BytesMut::new();
    if choice & 2 != 0 {
        let them = Peering { local_as: 65010, remote_as: 65001, identifier: [10, 0, 0, 2].into(), ..peering(family) };
        read.extend_from_slice(&open::encode(&them, false));
        read.extend_from_slice(&frame::put(Kind::Keepalive, &[]));
    }
    read.extend_from_slice(rest);
    let mut taken = 0;
    while let Ok(Some(frame)) = frame::take(&mut read) {
        if session.take(&frame).is_err() {
            break;
        }
        taken += 1;
        debug_assert!(taken < 2 || session.state() != State::OpenSent);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = (Kind, Vec<u8>)> {
        let kind = prop_oneof![
            Just(Kind::Open),
            Just(Kind::Update),
            Just(Kind::Notification),
            Just(Kind::Keepalive),
            Just(Kind::Refresh)
        ];
        // Small numbers make lengths that nearly fit.
        (kind, prop::collection::vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 0..64))
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            peer(&bytes);
        }

        #[test]
        fn nor_do_messages_of_any_content(choice in 0u8..4, messages in prop::collection::vec(kinds(), 0..6)) {
            let mut bytes = vec![choice];
            messages.iter().for_each(|(kind, body)| bytes.extend(frame::put(*kind, body)));
            peer(&bytes);
        }
    }

    #[test]
    fn the_door_leads_into_an_established_session() {
        let mut bytes = vec![3];
        bytes.extend(frame::put(Kind::Update, &[0, 0, 0, 0]));
        bytes.extend(frame::put(Kind::Refresh, &[0, 2, 0, 1]));
        assert_eq!(peer(&bytes), 4);
    }
}
