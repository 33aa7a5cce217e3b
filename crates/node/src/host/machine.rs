//! The machine: the role, the queue of its effects, and everything they act on.

use super::clock::Timers;
use super::disk::{Disk, Op};
use super::greet::{Greeted, Greeter};
use super::journal::Journal;
use super::link::{FromLink, Link};
use super::pool::Pool;
use super::shards::Adder;
use super::tier::{Held, TierHandle, is_borrowed};
use super::{Clock, HostError, Settings, Traffic, World};
use crate::role::{Effect, Event, LinkId, Report, Role, WorkId, Write};
use crate::store::{Made, StoreError, Workshop};
use crate::work::{self, Output, Work, WorkFault};
use littoral_wire::{NodeId, ObjectId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};

/// Messages taken from links that wait for the role; each may be a chunk.
const MESSAGES_MAX: usize = 16;
/// Effects behind a store in progress. With more of them, links wait.
const BEHIND_MAX: usize = 256;
/// For writes at the end of a run; a full disk could make them wait for ever.
const STOP_STORE_TIMEOUT: Duration = Duration::from_secs(20);
/// For goodbyes at the end of a run.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What happens to the machine, but for messages.
#[allow(clippy::large_enum_variant, reason = "nearly all of them are events")]
pub(super) enum Input {
    Event(Event),
    /// `made`: what the work made, if it came to its end.
    Worked {
        id: WorkId,
        result: Result<Output, WorkFault>,
        made: Vec<Made>,
    },
    Up(Box<Greeted>),
    /// The barrier is passed.
    Stored(Result<(), StoreError>),
    /// A lease is lost.
    Lost(StoreError),
    /// Nobody but perhaps the role needs these here any more.
    Unneeded(Vec<ObjectId>),
    Stop,
}

pub(super) struct Machine {
    role: Box<dyn Role>,
    world: World,
    settings: Arc<Settings>,
    clock: Clock,
    timers: Timers,
    /// Events that effects caused at once.
    events: VecDeque<Event>,
    effects: VecDeque<Effect>,
    /// Effects wait for a store.
    storing: bool,
    links: BTreeMap<LinkId, Link>,
    by_peer: BTreeSet<(NodeId, LinkId)>,
    links_made: u64,
    from_links: mpsc::Sender<FromLink>,
    messages: mpsc::Receiver<FromLink>,
    inputs: mpsc::UnboundedSender<Input>,
    disk: Disk,
    journal: Arc<Mutex<Journal>>,
    works: Pool,
    greeter: Greeter,
    traffic: Arc<Traffic>,
    /// To other replicas.
    tier: Option<TierHandle>,
    /// For rounds of many sums.
    adder: Option<Adder>,
}

impl Machine {
    pub(super) fn new(
        role: Box<dyn Role>,
        world: World,
        settings: Settings,
        inputs: mpsc::UnboundedSender<Input>,
        traffic: Arc<Traffic>,
    ) -> Self {
        let (settings, clock) = (Arc::new(settings), Clock::start());
        let (from_links, messages) = mpsc::channel(MESSAGES_MAX);
        let on_report = world.on_report.clone();
        let held = settings.replica.as_ref().map(|_| Held::default());
        let disk = Disk::new(world.objects.clone(), inputs.clone(), on_report.clone());
        let shared = settings.replica.as_ref();
        let adder = (settings.shard_sums > 0).then(|| Adder {
            store: world.store.clone(),
            objects: world.objects.clone(),
            data: world.data.clone(),
            disk: disk.clone(),
            clock,
            holder: shared.map_or_else(String::new, |replica| replica.store.replica().to_owned()),
            lease_ms: shared.map_or(settings.lease_ttl_ms, |replica| replica.lease_ms),
            sums_max: settings.shard_sums,
            woken: Arc::default(),
            inputs: inputs.clone(),
            on_report: on_report.clone(),
        });
        let tier = shared.zip(held.clone()).map(|(replica, held)| {
            TierHandle::start(replica, held, clock, adder.clone(), inputs.clone(), on_report.clone())
        });
        let journal = Journal {
            store: world.store.clone(),
            clock,
            on_report: on_report.clone(),
            holder: settings.holder.clone(),
            lease_ttl_ms: settings.lease_ttl_ms,
            leases: BTreeMap::new(),
            held,
        };
        Self {
            role,
            clock,
            timers: Timers::default(),
            events: VecDeque::from([Event::Start]),
            effects: VecDeque::new(),
            storing: false,
            links: BTreeMap::new(),
            by_peer: BTreeSet::new(),
            // From 1: the cloud uses 0 inside itself.
            links_made: 1,
            from_links,
            messages,
            disk,
            journal: Arc::new(Mutex::new(journal)),
            works: Pool::new("work", settings.threads),
            greeter: Greeter {
                transport: world.transport.clone(),
                settings: settings.clone(),
                inputs: inputs.clone(),
                on_report,
            },
            inputs,
            traffic,
            tier,
            adder,
            world,
            settings,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Input>) -> Result<(), HostError> {
        let accepting = tokio::spawn(self.greeter.clone().accept());
        let result = self.turn(&mut inbox).await;
        accepting.abort();
        if let Some(tier) = self.tier.take() {
            tier.close().await;
        }
        self.hang_up().await;
        result
    }

    async fn turn(&mut self, inbox: &mut mpsc::UnboundedReceiver<Input>) -> Result<(), HostError> {
        let (mut stopping, mut patience) = (false, Box::pin(sleep(STOP_STORE_TIMEOUT)));
        loop {
            self.settle(stopping);
            if stopping && !self.storing {
                return Ok(());
            }
            let listening = !stopping && self.effects.len() < BEHIND_MAX;
            tokio::select! { biased;
                () = due(self.timers.next_at(), self.clock), if !stopping => {
                    if let Some(timer) = self.timers.pop_due(self.clock.now()) {
                        self.step(Event::Timer(timer));
                    }
                }
                () = &mut patience, if stopping => return Err(HostError::NotFlushed),
                Some(input) = inbox.recv() => match input {
                    Input::Stored(result) => {
                        result?;
                        self.storing = false;
                    }
                    Input::Lost(error) => return Err(error.into()),
                    Input::Unneeded(objects) => self.forget(&objects),
                    Input::Stop if stopping => {}
                    Input::Stop => {
                        stopping = true;
                        patience.as_mut().reset(Instant::now() + STOP_STORE_TIMEOUT);
                    }
                    _ if stopping => {}
                    Input::Event(event) => self.step(event),
                    Input::Worked { id, result, made } => self.worked(id, result, made),
                    Input::Up(greeted) => self.link_up(*greeted),
                },
                Some(event) = self.messages.recv(), if listening => match event {
                    FromLink::Received(link, message) => {
                        // What comes after a hang-up is not heard.
                        if self.links.contains_key(&link) {
                            self.step(Event::Received { link, message });
                        }
                    }
                    FromLink::Down { link, reason, complaint } => self.link_down(link, reason, complaint),
                },
            }
        }
    }

    /// Performs effects until none is left or one must be waited for, and steps the events that they caused.
    fn settle(&mut self, stopping: bool) {
        loop {
            while !self.storing
                && let Some(effect) = self.effects.pop_front()
            {
                self.perform(effect);
            }
            if stopping {
                return;
            }
            match self.events.pop_front() {
                Some(event) => self.step(event),
                None => return,
            }
        }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.role.step(self.clock.now(), event, &mut effects);
        self.effects.extend(effects);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Dial(peer) => drop(tokio::spawn(self.greeter.clone().dial(peer))),
            Effect::Hangup { link, reason } if is_borrowed(link) => {
                self.tier.iter().for_each(|tier| tier.hang_up(link, reason.clone()));
            }
            Effect::Hangup { link, reason } => self.drop_link(link, reason),
            Effect::Send { link, message } if is_borrowed(link) => {
                self.tier.iter().for_each(|tier| tier.reply(link, message.clone()));
            }
            Effect::Pass { job, link, peer, message } => {
                self.tier.iter().for_each(|tier| tier.pass(job, link, peer, message.clone()));
            }
            Effect::Send { link, message } => {
                self.use_link(link, |link| link.send(&message));
            }
            Effect::SendChunk { link, object, index } => {
                self.use_link(link, |link| link.send_chunk(object, index));
            }
            Effect::Store(writes) => self.store(writes),
            Effect::Begin(manifest) => self.disk.order(Op::Begin(manifest)),
            Effect::Keep { object, index, bytes } => self.disk.order(Op::Keep { object, index, bytes }),
            Effect::Put { manifest, bytes } => {
                // No event answers it, so what stands behind may rely on it.
                let (done, put) = tokio::sync::oneshot::channel();
                self.disk.order(Op::Put { manifest, bytes, done });
                self.wait_for(async move {
                    let _ = put.await;
                    Ok(())
                });
            }
            Effect::Load { object, index } => self.disk.order(Op::Load { object, index }),
            Effect::Drop(object) if self.role.needs(object) => {}
            Effect::Drop(object) if self.effects.iter().any(|behind| behind.relies_on(object)) => {}
            Effect::Drop(object) => {
                // What stands behind may make the same bytes again, under the same name.
                self.disk.order(Op::Drop(object));
                let dropped = self.disk.fence(object);
                self.wait_for(async move {
                    let _ = dropped.await;
                    Ok(())
                });
            }
            Effect::Work { id, work } => self.work(id, work),
            Effect::SetTimer { timer, at } => self.timers.set(timer, at),
            Effect::Report(report) => (self.world.on_report)(report),
        }
    }

    /// Stores that stand next to each other share one commit.
    fn store(&mut self, mut writes: Vec<Write>) {
        while let Some(Effect::Store(more)) = self.effects.pop_front_if(|next| matches!(next, Effect::Store(_))) {
            writes.extend(more);
        }
        let named = writes.iter().filter_map(|write| match write {
            Write::Object(object) => Some(self.disk.fence(*object)),
            _ => None,
        });
        let (fences, journal): (Vec<_>, _) = (named.collect(), self.journal.clone());
        self.wait_for(async move {
            for fence in fences {
                let _ = fence.await;
            }
            journal.lock().await.commit(writes).await
        });
    }

    fn wait_for(&mut self, deed: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
        self.storing = true;
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            // A deed that panicked must not leave the role waiting for ever: the run ends.
            let done = tokio::spawn(deed).await.unwrap_or(Err(StoreError::Closed));
            inputs.send(Input::Stored(done))
        });
    }

    fn work(&self, id: WorkId, work: Box<Work>) {
        let (objects, data, inputs) = (self.world.objects.clone(), self.world.data.clone(), self.inputs.clone());
        let (works, adder) = (self.works.clone(), self.adder.clone().filter(|adder| adder.cuts(&work)));
        let run = move |work: &Work| {
            let workshop = Workshop::new(&*objects);
            let run = AssertUnwindSafe(|| work::run(work, &workshop, &*data));
            let result = catch_unwind(run)
                .unwrap_or_else(|_| Err(WorkFault::Failed("the work panicked, which is a bug; see the log".into())));
            let made = if result.is_ok() { workshop.into_made() } else { Vec::new() };
            let _ = inputs.send(Input::Worked { id, result, made });
        };
        match adder {
            None => works.run(move || run(&work)),
            Some(adder) => {
                let journal = self.journal.clone();
                drop(tokio::spawn(async move { adder.work(work, journal, works, run).await }));
            }
        }
    }

    fn forget(&mut self, objects: &[ObjectId]) {
        for object in objects {
            let relied_on = self.effects.iter().any(|behind| behind.relies_on(*object));
            if !relied_on && !self.role.needs(*object) {
                self.disk.order(Op::Forget(*object));
            }
        }
    }

    /// What was made gets its name behind all drops that were ordered before, and in front of the role's answer.
    fn worked(&mut self, id: WorkId, result: Result<Output, WorkFault>, made: Vec<Made>) {
        let objects: Vec<ObjectId> = made.iter().map(|made| made.manifest.id()).collect();
        made.into_iter().for_each(|made| self.disk.order(Op::Publish(made)));
        self.step(Event::Worked { id, result });
        // Nobody would come to drop what the role does not want. Asked again when its turn comes.
        self.effects.extend(objects.into_iter().filter(|object| !self.role.needs(*object)).map(Effect::Drop));
    }

    fn link_up(&mut self, greeted: Greeted) {
        let (peer, dialled, kernels) = (greeted.peer, greeted.dialled, greeted.kernels.clone());
        let of_peer = self.by_peer.range((peer, LinkId(0))..=(peer, LinkId(u64::MAX)));
        let held: Vec<LinkId> = of_peer.map(|(_, link)| *link).collect();
        if held.len() >= self.settings.links_per_peer_max.max(1) {
            self.drop_link(held[0], "replaced by a newer connection".into());
        }
        let link = LinkId(self.links_made);
        self.links_made += 1;
        self.traffic.add(peer, greeted.counters.clone());
        let spawned = Link::spawn(link, greeted, &self.settings, self.disk.clone(), self.from_links.clone());
        self.links.insert(link, spawned);
        self.by_peer.insert((peer, link));
        self.events.push_back(Event::Connected { link, peer, dialled, kernels });
    }

    fn link_down(&mut self, link: LinkId, reason: String, complaint: bool) {
        if let Some(known) = self.links.get(&link) {
            if complaint {
                let what = format!("{} was cut off: {reason}", known.peer);
                (self.world.on_report)(Report::Warning { what });
            }
            self.drop_link(link, reason);
        }
    }

    /// Tells both sides: the peer by a goodbye behind what is queued, the role by an event.
    fn drop_link(&mut self, link: LinkId, reason: String) {
        if let Some(dropped) = self.forget_link(link) {
            drop(dropped.close(reason.clone()));
            self.events.push_back(Event::Disconnected { link, reason });
        }
    }

    fn forget_link(&mut self, link: LinkId) -> Option<Link> {
        let forgotten = self.links.remove(&link)?;
        self.by_peer.remove(&(forgotten.peer, link));
        self.traffic.settle();
        Some(forgotten)
    }

    /// A link that has gone needs nothing.
    fn use_link(&mut self, id: LinkId, deed: impl FnOnce(&Link) -> Result<(), String>) {
        let Some(link) = self.links.get(&id) else { return };
        let peer = link.peer;
        if let Err(reason) = deed(link) {
            (self.world.on_report)(Report::Warning { what: format!("the link to {peer} was dropped: {reason}") });
            // Its queue is what is wrong with it.
            self.forget_link(id).into_iter().for_each(Link::cut);
            self.events.push_back(Event::Disconnected { link: id, reason });
        }
    }

    async fn hang_up(&mut self) {
        let links = std::mem::take(&mut self.links);
        let closing: Vec<_> = links.into_values().map(|link| link.close("this machine stops".into())).collect();
        let goodbyes = async {
            for link in closing {
                let _ = link.await;
            }
            self.world.transport.close().await;
        };
        // A peer that does not listen is not waited for.
        let _ = timeout(STOP_TIMEOUT, goodbyes).await;
        self.traffic.settle();
    }
}

async fn due(at: Option<u64>, clock: Clock) {
    match at {
        Some(at) => sleep(Duration::from_millis(at.saturating_sub(clock.now()))).await,
        None => std::future::pending().await,
    }
}
