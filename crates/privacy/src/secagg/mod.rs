//! Secure aggregation: a server learns the sum of the devices' vectors, and nothing else of them.
//!
//! SecAgg+ of Bell, Bonawitz, Gascón, Lepoint, Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic
//! Overhead" (CCS), which is Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning"
//! (CCS), on a random graph of few neighbours. Both sides are state machines: bytes in, bytes out; the caller brings
//! randomness, signatures, the roster and the transport. Edges relay the messages unread and add masked words.
//!
//! 1. A device advertises two X25519 keys of one use ([`Keyed`](device::Keyed)); under the active threat they, and a
//!    commitment to a nonce, are signed by its identity.
//! 2. Active: the server fixes the list by a root over all of it; then devices show their nonces. The graph's seed is a hash of
//!    the server's secret (bound to before anybody's keys), the root and the nonces (bound to with the keys).
//! 3. A device gets its neighbours, checks who they are, and sends each a share of the seed of its self mask and of its masking
//!    key, sealed.
//! 4. It gets theirs, and adds to its vector the stream of its self mask and ± that of each neighbour: what leaves is uniform.
//! 5. Who was summed? Under the active threat a device signs the set, and needs as many signatures of neighbours to the same set
//!    as open a secret. Then it reveals of each neighbour one share: of the self mask if it survived, of the masking key if not.
//! 6. The server opens those secrets and takes their streams from the sum. Pairs that both survived have cancelled.
//!
//! Read [`parameters`] (how many neighbours), [`harary`], [`shamir`], [`prg`], [`mask`], then [`session`] and [`message`], then
//! [`device`] and [`server`].
//!
//! # What it gives
//!
//! Under [`Threat::Honest`](parameters::Threat) a server that follows the protocol, together with the adversaries among the
//! devices that the parameters allow, sees sums over sets of at least [`Session::minimum`](session::Session::minimum) devices
//! only. Under [`Threat::Active`](parameters::Threat) also one that lies: each lie that the checks can see ends the session with a
//! [`Refused`](refused::Refused) that names it. Whatever devices drop out, within the parameters' bound, the sum is exact.
//!
//! # What it does not protect
//!
//! * The sum itself, and what it tells about a device: that is for noise. Which devices took part is known.
//! * A device's input is not checked: one that lies spoils the sum.
//! * Anybody can end a session: a server by stopping, a device by sealing a neighbour what does not open.
//! * Under the active threat the server sees the graph before it must say whose nonces came, as do devices that collude with it
//!   before they show theirs: each choice is a new graph, and trying 2^c of them costs c of the 40 bits of security. Every shown
//!   nonce is checked against the root, so there is nothing else to try.
//! * Under the active threat the roster must be kept by somebody whom the server cannot talk into adding devices.
//! * Under the honest threat a server that lies about keys learns everything.

pub mod codec;
pub mod device;
pub mod harary;
mod keys;
pub mod mask;
mod merkle;
pub mod message;
pub mod parameters;
pub mod prg;
pub mod refused;
mod secret;
pub mod server;
pub mod session;
pub mod shamir;
