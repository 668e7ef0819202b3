//! Messages arrive in the order they were made.

use std::collections::BTreeMap;

use super::*;

proptest! {
    /// Several turns, each cut into several frames, many groups mixed: every group hears its own
    /// messages in order, each with its own entries.
    #[test]
    fn contract_row_39_order_per_group_and_peer_is_kept(
        groups in prop::collection::vec(0..5u64, 1..60),
        cut in 1..10usize,
    ) {
        let (mut builder, mut reader) = (FrameBuilder::new(), FrameReader::new());
        let mut said: BTreeMap<GroupId, Vec<(Index, Vec<Entry>)>> = BTreeMap::new();
        for (number, group) in groups.iter().enumerate() {
            // Appends among empty messages: entries must not slip from one to the next.
            let payload = Bytes::from(format!("{group}-{number}"));
            let entries: Vec<Entry> =
                (0..number % 3).map(|_| Entry::command(payload.clone())).collect();
            let (group, mut message, _) = append(*group, number as u64, &[]);
            message.count = entries.len() as u32;
            builder.message(group, &message, &entries);
            said.entry(group).or_default().push((message.entry.index, entries));
            if number % cut == 0 {
                let bytes = builder.finish(&ROUTE, Lane::Append).to_bytes();
                // Two parts of bytes that are not the reader's alone.
                let first = number % bytes.len();
                reader.feed_owned(bytes.slice(..first));
                reader.feed_owned(bytes.slice(first..));
            }
        }
        reader.feed_owned(builder.finish(&ROUTE, Lane::Append).to_bytes());

        let mut heard: BTreeMap<GroupId, Vec<(Index, Vec<Entry>)>> = BTreeMap::new();
        while let Some(frame) = reader.next().expect("sound") {
            for (group, message, entries) in frame.messages() {
                heard.entry(group).or_default().push((message.entry.index, entries.collect()));
            }
        }
        prop_assert_eq!(heard, said);
    }
}
