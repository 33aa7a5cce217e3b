//! What is shown of a state is none of its secrets.

use crate::world::{Shared, Walk, World};
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::shamir::SHARE_BYTES;

/// Does the text hold these bytes, as hexadecimal digits or as a list of numbers? Eight in a row are enough.
fn shows(text: &str, bytes: &[u8]) -> bool {
    bytes.windows(8).filter(|window| window.iter().any(|&b| b != 0)).any(|window| {
        let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = window.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        text.to_lowercase().contains(&hex) || text.contains(&list)
    })
}

#[test]
fn debug_prints_no_secret() {
    assert!(shows(&format!("{:?}", [77u8; 9]), &[77; 9]) && shows("4d4d4d4d4d4d4d4d", &[77; 9]));
    for threat in [Threat::Honest, Threat::Active] {
        let world = World::new(Parameters::of_counts(6, 1, 1, threat).unwrap(), 7, 16);
        let walk = Walk::all(&world);
        // What the devices drew, and all that is derived from it: whatever a state holds that is not public.
        let (keyed, _) = world.keyed(0);
        assert!(!shows(&format!("{keyed:?} {keyed:#?}"), &[100; 32]));

        let Shared { directory, inboxes, mut sharing } = walk.share().unwrap();
        let one = sharing.remove(&0).unwrap();
        assert!(!shows(&format!("{one:?}"), &[100; 32]));
        let (masked, masks) = one.mask(&inboxes.inbox(&directory, walk.place(&directory, 0)).unwrap()).unwrap();
        // The shares are what a revealing device sends.
        let stored = masked.to_bytes();
        let text = format!("{masked:?} {masked:#?} {masks:?} {directory:?} {inboxes:?}");
        let shares = stored.len() - 2 * SHARE_BYTES * masked_neighbours(&world);
        assert!(!shows(&text, &stored[shares..]));
        let survivors = directory.open(0..6).unwrap().survivors();
        if threat == Threat::Honest {
            let (masked, reveal) = masked.reveal(&survivors).unwrap();
            let text = format!("{masked:?} {reveal:?} {:?}", reveal.clone());
            for share in &reveal.shares {
                assert!(!shows(&text, share));
            }
        }
    }
}

fn masked_neighbours(world: &World) -> usize {
    world.parameters.degree as usize
}
