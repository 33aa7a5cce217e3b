//! One replica of several: takes jobs that nobody runs, keeps their leases, hears what others change, carries their mail.
//!
//! Two tasks beside the machine, and a third that adds up shards ([`super::shards`]). [`Tier::keep`] renews leases; when one is lost, or could not be renewed in time, the run
//! ends: what this replica believes of its jobs is of before. [`Tier::serve`] looks, whenever it is woken or after a while,
//! for changes, for mail and for free jobs, and hands them to the role as events.
//!
//! A message that another replica passes on comes over a *borrowed* link, which has a number that no socket has.

use super::keys::KeyError;
use super::machine::Input;
use super::mail::{Envelope, MailKey};
use super::shards::Adder;
use super::{Clock, OnReport};
use crate::role::{Event, Kernels, LinkId, Millis, Report, Row, Table, Write};
use crate::store::{Addressee, Lease, Mail, PgStore, StoreError};
use littoral_wire::codec::Wire;
use littoral_wire::message::Reason;
use littoral_wire::{JobId, Message, NodeId, ObjectId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Without a notification it is looked after this long.
const POLL: Duration = Duration::from_millis(500);
/// Jobs that are taken at a time, so that several replicas share what one has left.
const CLAIMS_MAX: u32 = 2;
/// Leases are renewed so often in their life.
const RENEWALS: u64 = 4;
/// Numbers of borrowed links begin here. Links are counted from 1.
const BORROWED: u64 = 1 << 62;
const BORROWED_MAX: usize = 4_096;
/// How often dropped objects are looked for, and how long they stay.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
const SWEEP_GRACE: Duration = Duration::from_secs(3_600);
/// For giving leases back at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

const FLEET: JobId = JobId(0);

/// Which objects rows refer to, of all rows there are.
pub type Needs = Arc<dyn Fn(Vec<Row>) -> Box<dyn Fn(ObjectId) -> bool + Send> + Send + Sync>;

/// What makes a host one replica of several.
#[derive(Clone)]
pub struct Replica {
    pub store: PgStore,
    /// Life of a lease. Another replica takes over so long after this one has died.
    pub lease_ms: u64,
    /// The role knows of all changes up to here.
    pub seq: i64,
    pub mail: MailKey,
    pub needs: Needs,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica {{ at: {:?}, lease_ms: {} }}", self.store.at(), self.lease_ms)
    }
}

/// Leases that this replica has.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<Mutex<BTreeMap<JobId, Lease>>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease_of(&self, job: JobId) -> Result<Lease, StoreError> {
        self.lock().get(&job).cloned().ok_or(StoreError::NotLeased { job })
    }

    /// Under which leases these may be written. A job's description and its first line of the ledger are the fleet's to
    /// write, before anybody runs it. That a command was carried out anybody may note.
    pub(super) fn leases_for(&self, writes: &[Write]) -> Result<Vec<Lease>, StoreError> {
        let held = self.lock();
        let mut leases = BTreeMap::new();
        for write in writes {
            let key = match write {
                Write::Put { key, .. } | Write::Delete { key } if key.table != Table::Command => key,
                _ => continue,
            };
            let submitted = matches!(key.table, Table::Job | Table::Ledger);
            let lease = held.get(&key.job).or_else(|| held.get(&FLEET).filter(|_| submitted));
            let lease = lease.ok_or(StoreError::NotLeased { job: key.job })?;
            leases.insert(lease.job, lease.clone());
        }
        Ok(leases.into_values().collect())
    }
}

/// What the machine has for others.
enum Out {
    Pass { job: JobId, link: LinkId, peer: NodeId, message: Option<Message> },
    Reply { link: LinkId, message: Message },
    Hangup { link: LinkId, reason: String },
}

/// Is this link another replica's?
pub(super) fn is_borrowed(link: LinkId) -> bool {
    link.0 >= BORROWED
}

/// The machine's side.
pub(super) struct TierHandle {
    out: mpsc::UnboundedSender<Out>,
    held: Held,
    store: PgStore,
    tasks: Vec<JoinHandle<()>>,
}

impl TierHandle {
    pub(super) fn start(
        replica: &Replica,
        held: Held,
        clock: Clock,
        adder: Option<Adder>,
        inputs: mpsc::UnboundedSender<Input>,
        on_report: OnReport,
    ) -> Self {
        let (out, outbox) = mpsc::unbounded_channel();
        let store = replica.store.clone();
        let woken = adder.as_ref().map(|adder| adder.woken.clone());
        let tier = Tier { replica: replica.clone(), held: held.clone(), clock, woken, inputs, on_report };
        let mut tasks = vec![tokio::spawn(tier.clone().keep()), tokio::spawn(tier.serve(outbox))];
        tasks.extend(adder.map(|adder| tokio::spawn(adder.serve())));
        Self { out, held, store, tasks }
    }

    pub(super) fn pass(&self, job: JobId, link: LinkId, peer: NodeId, message: Option<Message>) {
        let _ = self.out.send(Out::Pass { job, link, peer, message });
    }

    pub(super) fn reply(&self, link: LinkId, message: Message) {
        let _ = self.out.send(Out::Reply { link, message });
    }

    pub(super) fn hang_up(&self, link: LinkId, reason: String) {
        let _ = self.out.send(Out::Hangup { link, reason });
    }

    /// Gives all leases back: nothing is written after this.
    pub(super) async fn close(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let leases: Vec<Lease> = std::mem::take(&mut *self.held.lock()).into_values().collect();
        let release = async {
            for lease in &leases {
                // Else it runs out.
                let _ = self.store.release(lease).await;
            }
        };
        let _ = timeout(RELEASE_TIMEOUT, release).await;
    }
}

#[derive(Clone)]
struct Tier {
    replica: Replica,
    held: Held,
    clock: Clock,
    /// Those who look for shards.
    woken: Option<Arc<Notify>>,
    inputs: mpsc::UnboundedSender<Input>,
    on_report: OnReport,
}

impl Tier {
    fn event(&self, event: Event) {
        // A run that has ended needs none.
        let _ = self.inputs.send(Input::Event(event));
    }

    fn lost(&self, error: StoreError) {
        let _ = self.inputs.send(Input::Lost(error));
    }

    fn ttl(&self) -> u64 {
        self.replica.lease_ms
    }

    /// Renews leases until one is lost.
    async fn keep(self) {
        let mut failure = None;
        loop {
            sleep(Duration::from_millis((self.ttl() / RENEWALS).max(1))).await;
            let leases: Vec<Lease> = self.held.lock().values().cloned().collect();
            let Some(until) = leases.iter().map(|lease| lease.until).min() else { continue };
            let left = Duration::from_millis(until.saturating_sub(self.clock.now()));
            let now = self.clock.now();
            match timeout(left, self.replica.store.renew_all(&leases, now, self.ttl())).await {
                Ok(Ok(renewed)) => {
                    let mut held = self.held.lock();
                    for lease in renewed {
                        held.insert(lease.job, lease);
                    }
                    failure = None;
                }
                Ok(Err(e)) if e.may_pass() => failure = Some(e),
                Ok(Err(e)) => return self.lost(e),
                Err(_) => failure = failure.or(Some(self.no_answer())),
            }
            if let Some(e) = failure.clone()
                && self.clock.now() >= until
            {
                return self.lost(e);
            }
        }
    }

    fn no_answer(&self) -> StoreError {
        let why = format!("leases could not be renewed within {} ms", self.ttl());
        StoreError::Database { at: self.replica.store.at().into(), why, passes: true }
    }

    async fn serve(self, mut outbox: mpsc::UnboundedReceiver<Out>) {
        let mut clerk =
            Clerk { tier: self, borrowed: Borrowed::default(), seq: 0, sweep_at: Instant::now() + SWEEP_EVERY };
        clerk.seq = clerk.tier.replica.seq;
        let mut listener = None;
        loop {
            if listener.is_none() {
                listener = clerk.tier.replica.store.listen().await.ok();
            }
            match clerk.turn().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(e) if e.may_pass() => clerk.warn(&e),
                Err(e) => return clerk.tier.lost(e),
            }
            let woken = async {
                match &mut listener {
                    Some(listener) => listener.recv().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            let again = Instant::now() + POLL;
            tokio::select! {
                out = outbox.recv() => {
                    let Some(out) = out else { return };
                    if let Err(e) = clerk.carry(out).await {
                        clerk.warn(&e);
                    }
                }
                heard = woken => match heard {
                    true => clerk.tier.woken.iter().for_each(|others| others.notify_waiters()),
                    false => listener = None,
                },
                () = sleep_until(again) => {}
            }
            while let Ok(out) = outbox.try_recv() {
                if let Err(e) = clerk.carry(out).await {
                    clerk.warn(&e);
                }
            }
        }
    }
}

/// Whose links are borrowed.
#[derive(Default)]
struct Borrowed {
    made: u64,
    /// By the lender and its number.
    by_lender: HashMap<(String, u64), LinkId>,
    lenders: BTreeMap<LinkId, (String, u64, NodeId)>,
}

struct Clerk {
    tier: Tier,
    borrowed: Borrowed,
    seq: i64,
    sweep_at: Instant,
}

impl Clerk {
    fn warn(&self, error: &StoreError) {
        (self.tier.on_report)(Report::Warning { what: format!("replica: {error}") });
    }

    fn now(&self) -> Millis {
        self.tier.clock.now()
    }

    /// Returns whether there may be more at once.
    async fn turn(&mut self) -> Result<bool, StoreError> {
        let store = self.tier.replica.store.clone();
        let changes = store.changes(self.seq).await?;
        self.seq = changes.seq;
        if !changes.rows.is_empty() {
            self.tier.event(Event::Shared { rows: changes.rows });
        }
        let mut boxes = vec![Addressee::Replica(store.replica().to_owned())];
        boxes.extend(self.tier.held.lock().keys().map(|job| Addressee::Holder(*job)));
        let mail = store.take_mail(&boxes).await?;
        let more = changes.more || !mail.is_empty();
        mail.into_iter().for_each(|(to, mail)| self.deliver(&to, mail));
        let claimed = store.claim(store.replica(), self.now(), self.tier.ttl(), CLAIMS_MAX).await?;
        for lease in claimed {
            let (job, token) = (lease.job, lease.token);
            // Renewed from here on, however long reading takes; the role does not write before it knows.
            self.tier.held.lock().insert(job, lease.clone());
            // Read under the lease: nobody else writes them any more.
            let rows = if job == FLEET { store.load_fleet().await } else { store.load_job(job).await };
            let rows = match rows {
                Ok(rows) => rows,
                Err(e) => {
                    self.tier.held.lock().remove(&job);
                    let _ = store.release(&lease).await;
                    return Err(e);
                }
            };
            self.tier.event(Event::Leased { job, token, rows });
        }
        self.sweep(&store).await?;
        Ok(more)
    }

    /// The fleet's holder deletes what nobody needs any more.
    async fn sweep(&mut self, store: &PgStore) -> Result<(), StoreError> {
        if Instant::now() < self.sweep_at || !self.tier.held.lock().contains_key(&FLEET) {
            return Ok(());
        }
        self.sweep_at = Instant::now() + SWEEP_EVERY;
        let needs = self.tier.replica.needs.clone();
        let gone = store.sweep(SWEEP_GRACE, move |rows| needs(rows)).await?;
        if gone > 0 {
            let what = format!("{gone} objects that no job needs were deleted from the bucket");
            (self.tier.on_report)(Report::Note { what });
        }
        Ok(())
    }

    fn deliver(&mut self, to: &str, mail: Mail) {
        let Mail { sender, link, peer, body } = mail;
        let envelope = Envelope { addressee: to, sender: &sender, link, peer };
        let Some(body) = self.tier.replica.mail.open(&envelope, &body) else {
            let what = "mail in the database that no replica of this cloud wrote was thrown away".to_owned();
            return (self.tier.on_report)(Report::Warning { what });
        };
        let mail = Mail { sender, link, peer, body };
        if to == Addressee::Replica(self.tier.replica.store.replica().to_owned()).name() {
            if let Ok(message) = Message::from_bytes(&mail.body) {
                self.tier.event(Event::Answered { link: LinkId(mail.link), message });
            }
            return;
        }
        let lender = (mail.sender, mail.link);
        if mail.body.is_empty() {
            if let Some(link) = self.borrowed.by_lender.remove(&lender) {
                self.give_back(link);
            }
            return;
        }
        let Ok(message) = Message::from_bytes(&mail.body) else { return };
        let link = match self.borrowed.by_lender.get(&lender) {
            Some(link) => *link,
            None => {
                if self.borrowed.lenders.len() >= BORROWED_MAX
                    && let Some(oldest) = self.borrowed.lenders.keys().next().copied()
                {
                    self.give_back(oldest);
                }
                let link = LinkId(BORROWED + self.borrowed.made);
                self.borrowed.made += 1;
                self.borrowed.lenders.insert(link, (lender.0.clone(), lender.1, mail.peer));
                self.borrowed.by_lender.insert(lender, link);
                let kernels = Kernels::default();
                self.tier.event(Event::Connected { link, peer: mail.peer, dialled: false, kernels });
                link
            }
        };
        self.tier.event(Event::Received { link, message });
    }

    fn give_back(&mut self, link: LinkId) {
        if let Some((lender, theirs, _)) = self.borrowed.lenders.remove(&link) {
            self.borrowed.by_lender.remove(&(lender, theirs));
            self.tier.event(Event::Disconnected { link, reason: "the replica whose link it is has let it go".into() });
        }
    }

    async fn carry(&mut self, out: Out) -> Result<(), StoreError> {
        match out {
            Out::Pass { job, link, peer, message } => {
                let body = message.map(|message| message.to_bytes()).unwrap_or_default();
                self.post(Addressee::Holder(job), link.0, peer, &body).await
            }
            // The lender asks its own peer whether it lives.
            Out::Reply { link, message: Message::Ping { nonce } } => {
                self.tier.event(Event::Received { link, message: Message::Pong { nonce } });
                Ok(())
            }
            Out::Reply { link, message } => self.answer(link, &message).await,
            Out::Hangup { link, reason } => {
                let bye = Message::Bye { reason: Reason::new(reason) };
                let told = self.answer(link, &bye).await;
                self.give_back(link);
                told
            }
        }
    }

    async fn answer(&self, link: LinkId, message: &Message) -> Result<(), StoreError> {
        let Some((lender, theirs, peer)) = self.borrowed.lenders.get(&link).cloned() else { return Ok(()) };
        self.post(Addressee::Replica(lender), theirs, peer, &message.to_bytes()).await
    }

    async fn post(&self, to: Addressee, link: u64, peer: NodeId, text: &[u8]) -> Result<(), StoreError> {
        let Replica { store, mail, .. } = &self.tier.replica;
        let (addressee, sender) = (&to.name(), store.replica());
        let sealed = mail.seal(&Envelope { addressee, sender, link, peer }, text);
        let failed = |e: KeyError| StoreError::Database { at: "this machine".into(), why: e.to_string(), passes: true };
        store.post(&to, link, peer, &sealed.map_err(failed)?).await
    }
}
