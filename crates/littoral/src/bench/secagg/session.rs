//! One session from the first key to the open sum, timed.

use super::super::{broken, median, team};
use crate::output::Failure;
use littoral_privacy::secagg::device::{self, Keyed, Masked};
use littoral_privacy::secagg::mask::{Masks, Sign};
use littoral_privacy::secagg::message::{
    Advertised, Consent, Consents, Fixed, Inbox, Neighbours, Nonce, Reveal, Shares, Survivors,
};
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::prg::Prg;
use littoral_privacy::secagg::server::{Gathering, Opening, Unmask};
use littoral_privacy::secagg::session::{Session, commitment};
use littoral_tensor::fixed::{add_packed, pack, packed_len, sub_packed, unpack};
use littoral_wire::{NodeId, SecretKey};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

pub struct Setting {
    pub parameters: Parameters,
    pub params: u32,
    /// Devices that drop out after sharing.
    pub dropped: u32,
    pub prg: Prg,
    pub seed: u64,
    pub threads: usize,
}

pub struct Figures {
    pub total_s: f64,
    pub server_s: f64,
    pub client_s_median: f64,
    pub bytes_per_client: f64,
    pub formula_bytes_per_client: u64,
    pub max_abs_error: u64,
    pub prg_gb_per_s: f64,
    pub mask_gb_per_s: f64,
    pub degree: u32,
    pub threshold: u32,
}

const LEVELS: u64 = (1 << 16) - 1;
const DOMAIN: &str = "secagg";
/// Bytes that each of the two speeds is measured over, each time.
const SPEED_BYTES: u64 = 64 << 20;
const SPEED_TIMES: usize = 5;

/// A device between two steps.
#[derive(Default)]
struct Device {
    state: State,
    /// What it sends next, encoded.
    out: Vec<u8>,
    index: u32,
    seconds: f64,
    /// Sent and received.
    bytes: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Gone,
    Keyed(Keyed),
    Sharing(device::Sharing),
    Masked(Masked),
}

/// All devices, and how they are worked on.
struct Fleet {
    devices: Vec<Mutex<Device>>,
    threads: usize,
    active: bool,
}

fn failed(why: &dyn std::fmt::Display) -> Failure {
    broken("littoral bench secagg")(why)
}

impl Fleet {
    /// `step` for each device below the count that is not gone: what came in makes a new state and what goes out.
    /// A step says which of its seconds are not the device's.
    fn step(
        &self,
        incoming: &(dyn Fn(u32) -> Result<Vec<u8>, Failure> + Sync),
        step: impl Fn(State, &[u8], usize, &mut f64) -> Result<(State, Vec<u8>), Failure> + Sync,
    ) -> Result<f64, Failure> {
        let server = Mutex::new(0.0);
        team::share(&mut vec![(); self.threads], self.devices.len(), |(), at| {
            let mut device = self.devices[at].lock().unwrap_or_else(|e| e.into_inner());
            if matches!(device.state, State::Gone) {
                return Ok(());
            }
            let start = Instant::now();
            let message = incoming(device.index)?;
            let came = Instant::now();
            let state = std::mem::take(&mut device.state);
            let mut not_its_own = 0.0;
            (device.state, device.out) = step(state, &message, at, &mut not_its_own)?;
            device.bytes += (message.len() + device.out.len()) as u64;
            device.seconds += came.elapsed().as_secs_f64() - not_its_own;
            *server.lock().unwrap_or_else(|e| e.into_inner()) += (came - start).as_secs_f64();
            Ok::<(), Failure>(())
        })?;
        // The server's part was spread over all threads.
        Ok(server.into_inner().unwrap_or_default() / self.threads as f64)
    }

    /// Each device's message to the server, one after another; seconds.
    fn deliver(&self, mut take: impl FnMut(u32, &[u8]) -> Result<(), Failure>) -> Result<f64, Failure> {
        let start = Instant::now();
        for device in &self.devices {
            let mut device = device.lock().unwrap_or_else(|e| e.into_inner());
            if !matches!(device.state, State::Gone) {
                let message = std::mem::take(&mut device.out);
                take(device.index, &message)?;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

fn wrong_turn() -> Failure {
    failed(&"a device is in another state than its turn")
}

pub fn play(setting: &Setting) -> Result<Figures, Failure> {
    let fail = |e: &dyn std::fmt::Display| failed(e);
    let Parameters { clients, threat, .. } = setting.parameters;
    let active = threat == Threat::Active;
    let share = |count: u32| f64::from(count) / f64::from(clients);
    let bits = u64::BITS - (u64::from(clients) * LEVELS).leading_zeros();
    let words = setting.params as usize;
    let bytes = packed_len(words, bits);
    let (context, secret) = (random(setting.seed, b"context", 0), random(setting.seed, b"server", 0));
    let session = Session {
        context,
        threat,
        adversary: share(setting.parameters.adversaries),
        dropout: share(setting.parameters.dropouts),
        prg: setting.prg,
        bytes: bytes as u64,
        bits: bits as u8,
        min_group: 2,
        commitment: if active { commitment(&context, &secret) } else { [0; 32] },
    };
    // Long-lived identities are not made for a session. The list is sorted by them: a device's index is its place.
    let mut keys: Vec<SecretKey> =
        (0..clients).map(|i| SecretKey::from_bytes(random(setting.seed, b"identity", i))).collect();
    keys.sort_by_key(SecretKey::id);
    let gone = dropouts(setting);
    let verify = |identity: &[u8; 32], statement: &[u8], signature: &[u8; 64]| {
        NodeId(*identity).verify(DOMAIN, statement, signature).is_ok()
    };
    let devices = (0..clients).map(|index| Mutex::new(Device { index, ..Device::default() })).collect();
    let fleet = Fleet { devices, threads: setting.threads, active };
    let mut server_s = 0.0;
    let began = Instant::now();

    // Keys.
    team::share(&mut vec![(); setting.threads], clients as usize, |(), at| {
        let mut device = fleet.devices[at].lock().unwrap_or_else(|e| e.into_inner());
        let start = Instant::now();
        let sign = |statement: &[u8]| keys[at].sign(DOMAIN, statement);
        let fresh = random(setting.seed, b"device", at as u32);
        let (keyed, advertised) = Keyed::new(session.clone(), keys[at].id().0, fresh, &sign).map_err(|e| fail(&e))?;
        device.out = advertised.encode();
        device.bytes += device.out.len() as u64;
        device.state = State::Keyed(keyed);
        device.seconds += start.elapsed().as_secs_f64();
        Ok::<(), Failure>(())
    })?;
    let mut gathering = Gathering::new(session.clone(), secret).map_err(|e| fail(&e))?;
    server_s += fleet.deliver(|index, message| {
        let advertised = Advertised::decode(message).map_err(|e| fail(&e))?;
        gathering.add(keys[index as usize].id().0, &advertised, &verify).map_err(|e| fail(&e))
    })?;
    let start = Instant::now();
    let mut listing = gathering.fix().map_err(|e| fail(&e))?;
    let fixed = listing.fixed().encode();
    server_s += start.elapsed().as_secs_f64();

    // The list.
    if fleet.active {
        server_s += fleet.step(&|_| Ok(fixed.clone()), |state, message, _, _| {
            let State::Keyed(keyed) = state else { return Err(wrong_turn()) };
            let fixed = Fixed::decode(message).map_err(|e| fail(&e))?;
            let (keyed, nonce) = keyed.fix(&fixed).map_err(|e| fail(&e))?;
            Ok((State::Keyed(keyed), nonce.encode()))
        })?;
        server_s += fleet.deliver(|index, message| {
            listing.nonce(index, &Nonce::decode(message).map_err(|e| fail(&e))?).map_err(|e| fail(&e))
        })?;
    }
    let start = Instant::now();
    let mut sharing = listing.graph().map_err(|e| fail(&e))?;
    server_s += start.elapsed().as_secs_f64();

    // Neighbours, shares.
    server_s += fleet.step(
        &|index| Ok(sharing.neighbours(index, &|_| Vec::new()).map_err(|e| fail(&e))?.encode()),
        |state, message, _, _| {
            let State::Keyed(keyed) = state else { return Err(wrong_turn()) };
            let neighbours = Neighbours::decode(message).map_err(|e| fail(&e))?;
            let (sharing, shares) = keyed.neighbours(&neighbours, &verify, &|_, _| true).map_err(|e| fail(&e))?;
            Ok((State::Sharing(sharing), shares.encode()))
        },
    )?;
    server_s += fleet.deliver(|index, message| {
        sharing.add(index, Shares::decode(message).map_err(|e| fail(&e))?).map_err(|e| fail(&e))
    })?;
    let start = Instant::now();
    let (directory, inboxes) = sharing.close().map_err(|e| fail(&e))?;
    server_s += start.elapsed().as_secs_f64();
    for &index in &gone {
        fleet.devices[index as usize].lock().unwrap_or_else(|e| e.into_inner()).state = State::Gone;
    }

    // Masked vectors, summed as they come, by each thread for itself as an edge does.
    let some_masks = Mutex::new(None);
    let partials: Mutex<Vec<Partial>> = Mutex::new(Vec::new());
    let adding = Mutex::new(0.0);
    server_s += fleet.step(
        &|index| Ok(inboxes.inbox(&directory, index).map_err(|e| fail(&e))?.encode()),
        |state, message, at, not_its_own| {
            let State::Sharing(sharing) = state else { return Err(wrong_turn()) };
            let inbox = Inbox::decode(message).map_err(|e| fail(&e))?;
            let (masked, masks) = sharing.mask(&inbox).map_err(|e| fail(&e))?;
            let start = Instant::now();
            let taken = partials.lock().unwrap_or_else(|e| e.into_inner()).pop();
            let mut partial = taken.unwrap_or_else(|| Partial::new(words, bytes));
            values(setting.seed, at, &mut partial.values);
            *not_its_own += start.elapsed().as_secs_f64();
            pack(&partial.values, bits, &mut partial.vector).map_err(|e| fail(&e))?;
            apply(&masks, 0, &mut partial.vector, bits)?;
            // For a restart.
            black_box(masked.to_bytes());
            let start = Instant::now();
            add_packed(&mut partial.sum, &partial.vector, bits).map_err(|e| fail(&e))?;
            *adding.lock().unwrap_or_else(|e| e.into_inner()) += start.elapsed().as_secs_f64();
            partial.expected.iter_mut().zip(&partial.values).for_each(|(sum, value)| *sum += value);
            *not_its_own += start.elapsed().as_secs_f64();
            partials.lock().unwrap_or_else(|e| e.into_inner()).push(partial);
            some_masks.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(masks);
            Ok((State::Masked(masked), Vec::new()))
        },
    )?;
    let start = Instant::now();
    let mut partials = partials.into_inner().unwrap_or_else(|e| e.into_inner()).into_iter();
    let mut total = partials.next().unwrap_or_else(|| Partial::new(words, bytes));
    for partial in partials {
        add_packed(&mut total.sum, &partial.sum, bits).map_err(|e| fail(&e))?;
        total.expected.iter_mut().zip(&partial.expected).for_each(|(sum, value)| *sum += value);
    }
    let adding_s = adding.into_inner().unwrap_or_default() / setting.threads as f64;
    server_s += adding_s + start.elapsed().as_secs_f64();

    // Survivors, consents, shares.
    let start = Instant::now();
    let mut opening = directory.open((0..clients).filter(|index| !gone.contains(index))).map_err(|e| fail(&e))?;
    let survivors = opening.survivors().encode();
    server_s += start.elapsed().as_secs_f64();
    if fleet.active {
        server_s += fleet.step(&|_| Ok(survivors.clone()), |state, message, at, _| {
            let State::Masked(masked) = state else { return Err(wrong_turn()) };
            let sign = |statement: &[u8]| keys[at].sign(DOMAIN, statement);
            let survivors = Survivors::decode(message).map_err(|e| fail(&e))?;
            let (masked, consent) = masked.consent(&survivors, &sign).map_err(|e| fail(&e))?;
            black_box(masked.to_bytes());
            Ok((State::Masked(masked), consent.encode()))
        })?;
        server_s += fleet.deliver(|index, message| {
            let consent = Consent::decode(message).map_err(|e| fail(&e))?;
            opening.consent(index, &consent, &verify).map_err(|e| fail(&e))
        })?;
    }
    server_s += fleet.step(
        &|index| match active {
            true => Ok(opening.consents_for(index).map_err(|e| fail(&e))?.encode()),
            false => Ok(survivors.clone()),
        },
        |state, message, _, _| {
            let State::Masked(masked) = state else { return Err(wrong_turn()) };
            let (masked, reveal) = if active {
                masked.reveal_confirmed(&Consents::decode(message).map_err(|e| fail(&e))?, &verify)
            } else {
                masked.reveal(&Survivors::decode(message).map_err(|e| fail(&e))?)
            }
            .map_err(|e| fail(&e))?;
            black_box(masked.to_bytes());
            Ok((State::Masked(masked), reveal.encode()))
        },
    )?;
    server_s += fleet.deliver(|index, message| {
        opening.reveal(index, &Reveal::decode(message).map_err(|e| fail(&e))?).map_err(|e| fail(&e))
    })?;

    // The sum is opened: secrets side by side, then blocks side by side.
    let start = Instant::now();
    let unmask = unmask(&opening, setting.threads)?;
    open(&unmask.masks, &mut total.sum, bits, setting.threads)?;
    let mut sum = vec![0; words];
    unpack(&total.sum, bits, &mut sum).map_err(|e| fail(&e))?;
    server_s += start.elapsed().as_secs_f64();
    let total_s = began.elapsed().as_secs_f64();

    let residue = |word: i64| word as u64 & (u64::MAX >> (64 - bits));
    let errors = sum.iter().zip(&total.expected).map(|(got, expected)| residue(*got).abs_diff(residue(*expected)));
    let stayed: Vec<Device> = fleet.devices.into_iter().filter_map(|device| device.into_inner().ok()).collect();
    let stayed: Vec<&Device> = stayed.iter().filter(|device| matches!(device.state, State::Masked(_))).collect();
    let seconds: Vec<f64> = stayed.iter().map(|device| device.seconds).collect();
    let message_bytes: u64 = stayed.iter().map(|device| device.bytes).sum();
    let masks = some_masks.into_inner().ok().flatten().ok_or_else(wrong_turn)?;
    let (prg_gb_per_s, mask_gb_per_s) = speeds(setting.prg, &masks, &mut total.vector, bits)?;
    let Parameters { degree, threshold, .. } = setting.parameters;
    Ok(Figures {
        total_s,
        server_s,
        client_s_median: median(&seconds),
        bytes_per_client: message_bytes as f64 / stayed.len() as f64 + bytes as f64,
        formula_bytes_per_client: (words as u64 * u64::from(bits)).div_ceil(8) + 7 * u64::from(degree) * 32,
        max_abs_error: errors.max().unwrap_or(0),
        prg_gb_per_s,
        mask_gb_per_s,
        degree,
        threshold,
    })
}

/// What a thread adds up, and what it makes vectors in.
struct Partial {
    sum: Vec<u8>,
    expected: Vec<i64>,
    values: Vec<i64>,
    vector: Vec<u8>,
}

impl Partial {
    fn new(words: usize, bytes: usize) -> Self {
        Self { sum: vec![0; bytes], expected: vec![0; words], values: vec![0; words], vector: vec![0; bytes] }
    }
}

fn apply(masks: &Masks, offset: u64, vector: &mut [u8], bits: u32) -> Result<(), Failure> {
    let mut done = Ok(());
    let range = offset..offset + vector.len() as u64;
    let each = |at: u64, sign, mask: &[u8]| {
        let at = (at - offset) as usize;
        let part = &mut vector[at..at + mask.len()];
        let added = match sign {
            Sign::Plus => add_packed(part, mask, bits),
            Sign::Minus => sub_packed(part, mask, bits),
        };
        if let Err(e) = added {
            done = Err(failed(&e));
        }
    };
    masks.for_each_block(range, each).map_err(|e| failed(&e))?;
    done
}

fn unmask(opening: &Opening, threads: usize) -> Result<Unmask, Failure> {
    let wanted = opening.wanted();
    let mut parts: Vec<Vec<Unmask>> = (0..threads).map(|_| Vec::new()).collect();
    team::share(&mut parts, wanted.len(), |parts, at| {
        parts.push(opening.masks_of(wanted[at]).map_err(|e| failed(&e))?);
        Ok::<(), Failure>(())
    })?;
    let mut parts = parts.into_iter().flatten();
    let mut all = parts.next().ok_or_else(wrong_turn)?;
    parts.for_each(|part| all.append(part));
    Ok(all)
}

fn open(masks: &Masks, sum: &mut [u8], bits: u32, threads: usize) -> Result<(), Failure> {
    let block = masks.block_bytes() as usize;
    let blocks: Vec<Mutex<&mut [u8]>> = sum.chunks_mut(block).map(Mutex::new).collect();
    team::share(&mut vec![(); threads], blocks.len(), |(), at| {
        let mut part = blocks[at].lock().unwrap_or_else(|e| e.into_inner());
        apply(masks, (at * block) as u64, &mut part, bits)
    })
}

/// GB/s of the generator, and of one device's masks, in turn on one thread: the medians.
fn speeds(prg: Prg, masks: &Masks, vector: &mut [u8], bits: u32) -> Result<(f64, f64), Failure> {
    let mut room = vec![0; masks.block_bytes() as usize];
    let (mut generated, mut masked) = (Vec::new(), Vec::new());
    for _ in 0..SPEED_TIMES {
        let mut stream = prg.stream(&[5; 32]);
        let blocks = SPEED_BYTES / room.len() as u64;
        let start = Instant::now();
        for block in 0..blocks {
            stream.fill(block * room.len() as u64, &mut room);
            black_box(&room);
        }
        generated.push((blocks * room.len() as u64) as f64 / start.elapsed().as_secs_f64() * 1e-9);
        let at_once = masks.len() as u64 * vector.len() as u64;
        let times = SPEED_BYTES.div_ceil(at_once);
        let start = Instant::now();
        for _ in 0..times {
            apply(masks, 0, vector, bits)?;
        }
        masked.push((times * at_once) as f64 / start.elapsed().as_secs_f64() * 1e-9);
    }
    Ok((median(&generated), median(&masked)))
}

/// 32 bytes for one purpose.
fn random(seed: u64, purpose: &[u8], index: u32) -> [u8; 32] {
    let text = [purpose, &seed.to_le_bytes(), &index.to_le_bytes()].concat();
    let mut key = [0; 32];
    key[..text.len().min(32)].copy_from_slice(&text[..text.len().min(32)]);
    let mut out = [0; 32];
    Prg::ChaCha20.stream(&key).fill(0, &mut out);
    out
}

/// The values of a device, below 2^16.
fn values(seed: u64, device: usize, out: &mut [i64]) {
    let mut stream = Prg::Aes128Ctr.stream(&random(seed, b"values", device as u32));
    let mut bytes = [0; 4096];
    for (block, out) in out.chunks_mut(bytes.len() / 2).enumerate() {
        stream.fill((block * bytes.len()) as u64, &mut bytes);
        out.iter_mut()
            .zip(bytes.as_chunks::<2>().0)
            .for_each(|(value, bytes)| *value = u16::from_le_bytes(*bytes).into());
    }
}

/// Which devices drop out: those whose random bytes are the smallest.
fn dropouts(setting: &Setting) -> Vec<u32> {
    let mut order: Vec<u32> = (0..setting.parameters.clients).collect();
    order.sort_by_key(|&index| random(setting.seed, b"drops out", index));
    order.truncate(setting.dropped as usize);
    order
}
