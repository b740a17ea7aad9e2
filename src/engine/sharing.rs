//! Between the engine and a transport's [`Outgoing`]: what its consumers want and what arrives for
//! them goes in, what they may be sent comes out.
//!
//! Called by the engine when consumers start or want something else, when receivers tell what
//! arrives, and at deadlines. Invariants: a consumer without layers is never held back; one with
//! layers is not sent more than its `target`, nothing at all where that is too much, and asks for
//! no key frame of what it may not have.

use std::time::Instant;

use crate::control::command::{BitrateLimits, Event, Layers};
use crate::control::stats::WhyLayers;
use crate::engine::allocation::{Claim, Ladder, Reason, WhyLayer};
use crate::engine::codec::TEMPORAL_LAYERS_MAX;
use crate::engine::consumer::Consumer;
use crate::engine::layer;
use crate::engine::outgoing::{Outgoing, Telling};
use crate::engine::producer::Producer;
use crate::engine::rtcp::{ReportBlock, TransportCc};
use crate::engine::select::{LayerRates, LayerTarget};
use crate::engine::stream::Stream;
use crate::engine::{ConsumerKey, Engine, ProducerKey, TimerKey, TransportKey};
use crate::limits::{AUDIO_OVERHEAD_BPS, VIDEO_OVERHEAD_PERCENT};
use crate::ortc::types::MediaKind;

/// What of a transport's capacity is asked for.
struct Wants {
    /// bits/s that are sent whatever the estimate.
    fixed_bps: u64,
    /// bits/s that are sent and not told of.
    untold_bps: u64,
    /// Something is sent at all.
    is_active: bool,
}

impl Engine {
    /// A consumer begins: what it may be sent is worked out, and it goes over to that.
    pub(super) fn begin_share(&mut self, now: Instant, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let (transport_key, producer_key) = (consumer.transport, consumer.producer);
        let Some(transport) = self.transports.get_mut(transport_key) else { return };
        let telling = match (consumer.numbered, consumer.remb) {
            (true, _) => Telling::TransportCc,
            (false, true) => Telling::Remb,
            (false, false) => Telling::Nothing,
        };
        let limited = transport.limits.max_outgoing_bps.is_some();
        if transport.outgoing.is_none() && (telling > Telling::Nothing || limited) {
            transport.outgoing = Some(Box::new(Outgoing::new(now, &transport.limits)));
        }
        if let Some(outgoing) = &mut transport.outgoing {
            outgoing.open(now, telling);
        }
        let layered = self.producers.get(producer_key).is_some_and(Producer::is_layered);
        if transport.outgoing.is_none() || !layered {
            consumer.allowed = Some(LayerTarget::HIGHEST);
            consumer.target = consumer.preferred();
        } else if consumer.allowed.is_none() && consumer.share.stopped.is_none() {
            // One sharing serves all that begin together.
            self.share(now, transport_key);
        }
        self.arm_outgoing(transport_key);
        if self.consumers.get(key).is_some_and(|consumer| consumer.kind == MediaKind::Video) {
            self.choose_layer(now, producer_key, key);
        }
    }

    /// A consumer wants other layers, or counts more or less, than before.
    pub(super) fn change_share(&mut self, now: Instant, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let (transport_key, producer_key) = (consumer.transport, consumer.producer);
        let layered = self.producers.get(producer_key).is_some_and(Producer::is_layered);
        if layered && self.transports.get(transport_key).is_some_and(|t| t.outgoing.is_some()) {
            self.share(now, transport_key);
            self.arm_outgoing(transport_key);
        } else {
            consumer.target = consumer.preferred();
        }
        self.choose_layer(now, producer_key, key);
    }

    /// A transport has other limits.
    pub(super) fn limit_outgoing(&mut self, now: Instant, key: TransportKey, new: BitrateLimits) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        transport.limits = new;
        if transport.outgoing.is_none() && new.max_outgoing_bps.is_some() {
            transport.outgoing = Some(Box::new(Outgoing::new(now, &new)));
        }
        if let Some(outgoing) = &mut transport.outgoing {
            outgoing.limit(now, &new);
            self.arm_outgoing(key);
        }
    }

    /// The receiver told which packets arrived.
    pub(super) fn handle_arrivals(
        &mut self,
        now: Instant,
        key: TransportKey,
        feedback: &TransportCc<'_>,
    ) {
        self.tell_outgoing(now, key, |outgoing| outgoing.handle_feedback(now, feedback));
        self.settle_wishes(now, key);
    }

    /// The receiver told what it can take.
    pub(super) fn handle_remb(&mut self, now: Instant, key: TransportKey, bps: u64) {
        self.tell_outgoing(now, key, |outgoing| outgoing.handle_remb(now, bps));
    }

    /// The receiver told how much of each stream was lost.
    pub(super) fn handle_losses(
        &mut self,
        now: Instant,
        key: TransportKey,
        blocks: impl Iterator<Item = ReportBlock>,
    ) {
        let Some(transport) = self.transports.get(key).filter(|t| t.outgoing.is_some()) else {
            return;
        };
        let (mut sum, mut count, mut round_trip) = (0_u32, 0_u32, None);
        for block in blocks {
            let consumer =
                transport.out_ssrcs.get(&block.ssrc).and_then(|k| self.consumers.get(*k));
            if let Some(consumer) = consumer.filter(|consumer| consumer.ssrc == block.ssrc) {
                sum += u32::from(block.fraction_lost);
                count += 1;
                round_trip = Some(consumer.round_trip).filter(|way| !way.is_zero());
            }
        }
        let Some(lost) = sum.checked_div(count).and_then(|mean| u8::try_from(mean).ok()) else {
            return;
        };
        self.tell_outgoing(now, key, |outgoing| outgoing.handle_report(now, lost, round_trip));
    }

    fn tell_outgoing(&mut self, now: Instant, key: TransportKey, tell: impl FnOnce(&mut Outgoing)) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(outgoing) = &mut transport.outgoing else { return };
        tell(outgoing);
        if outgoing.is_outrun(now) {
            self.share(now, key);
        }
        self.arm_outgoing(key);
    }

    pub(super) fn arm_outgoing(&mut self, key: TransportKey) {
        let outgoing = self.transports.get(key).and_then(|t| t.outgoing.as_ref());
        if let Some(deadline) = outgoing.and_then(|outgoing| outgoing.next_deadline()) {
            self.timers.arm(TimerKey::Outgoing(key), deadline);
        }
    }

    /// The deadline of a transport's estimator, of a probe, or of the next sharing has come.
    pub(super) fn handle_outgoing_deadline(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(outgoing) = &mut transport.outgoing else { return };
        if outgoing.handle_timeout(now) {
            self.share(now, key);
        }
        // A probe, or what was held back for a slow link, may be due.
        self.mark_due(key);
        self.arm_outgoing(key);
    }

    /// Shares what a transport can send among its consumers.
    fn share(&mut self, now: Instant, key: TransportKey) {
        let mut claims = std::mem::take(&mut self.claims);
        claims.clear();
        let wants = self.collect_claims(now, key, &mut claims);
        for claim in &mut claims {
            if let Some(consumer) = self.consumers.get_mut(claim.consumer) {
                consumer.share.level(now, &mut claim.ladder);
            }
        }
        if let Some(transport) = self.transports.get_mut(key)
            && let Some(outgoing) = &mut transport.outgoing
        {
            outgoing.set_untold(wants.untold_bps);
            outgoing.share(now, wants.fixed_bps, wants.is_active, &mut claims);
            let (id, news) = (transport.id, outgoing.poll_news(now));
            if let Some(estimate_bps) = news {
                self.tell(Event::Bandwidth { transport: id, estimate_bps });
            }
        }
        for claim in &claims {
            let why = self.why_shared(now, key, claim);
            self.grant(now, claim, why);
            self.tell_layers(now, claim.consumer);
        }
        self.claims = claims;
    }

    /// What each layered consumer of a transport can be sent, and what is asked for besides.
    fn collect_claims(&self, now: Instant, key: TransportKey, claims: &mut Vec<Claim>) -> Wants {
        let mut wants = Wants { fixed_bps: 0, untold_bps: 0, is_active: false };
        let Some(transport) = self.transports.get(key).filter(|t| t.can_send()) else {
            return wants;
        };
        let Some(outgoing) = &transport.outgoing else { return wants };
        for (order, consumer_key) in transport.consumers.iter().enumerate() {
            let Some(consumer) = self.consumers.get(*consumer_key) else { continue };
            let Some(producer) = self.producers.get(consumer.producer) else { continue };
            if consumer.paused || producer.paused {
                continue;
            }
            if producer.is_layered() {
                let mut claim = Claim::new(*consumer_key, consumer.priority, consumer.allowed);
                claim.order = order;
                claim.stopped = consumer.share.stopped;
                claim.ladder = self.ladder(now, consumer, producer);
                claims.push(claim);
                wants.is_active = true;
            } else if consumer.numbered || outgoing.telling() != Telling::TransportCc {
                wants.fixed_bps += self.fixed_bps(now, producer);
                wants.is_active = true;
            } else {
                // What the receiver does not tell of is not in its estimate either.
                wants.untold_bps += self.fixed_bps(now, producer);
            }
        }
        wants
    }

    /// bits/s on the wire of a producer without layers.
    fn fixed_bps(&self, now: Instant, producer: &Producer) -> u64 {
        let stream = producer.streams.first().and_then(|key| self.streams.get(*key));
        // What has ended without a word costs nothing, whatever it cost.
        let stream = stream.filter(|stream| stream.activity.is_alive(now));
        match (producer.kind, stream.map_or(0, |stream| stream.price_bps(now))) {
            (_, 0) => 0,
            (MediaKind::Audio, bps) => bps + AUDIO_OVERHEAD_BPS,
            (MediaKind::Video, bps) => on_wire(bps),
        }
    }

    /// What a consumer can be sent as, from what arrives.
    fn ladder(&self, now: Instant, consumer: &Consumer, producer: &Producer) -> Ladder {
        let wanted = consumer.preferred();
        let mut ladder = Ladder::default();
        let streams = || producer.streams.iter().filter_map(|key| self.streams.get(*key));
        if producer.streams.len() == 1 {
            if let Some(stream) = streams().next().filter(|s| s.can_be_priced(now)) {
                let rates = stream.layer_rates(now);
                for spatial in 0..=rates.highest().spatial.min(wanted.spatial) {
                    add(&mut ladder, spatial, &rates, spatial, wanted);
                }
            }
            return ladder;
        }
        if !streams().any(|stream| stream.can_be_priced(now)) {
            return ladder;
        }
        let playing = consumer.playing.map(|playing| playing.stream);
        let current = producer.streams.iter().position(|key| Some(*key) == playing);
        let last = producer.streams.len().saturating_sub(1).min(wanted.spatial.into());
        for (place, stream) in (0_u8..).zip(streams()).take(last + 1) {
            let is_current = current == Some(usize::from(place));
            let rates = stream.layer_rates(now);
            // A mirror's that nothing was told of yet: what it costs is not known.
            let known = place == 0 || is_current || rates.bps(LayerTarget::HIGHEST) > 0;
            if known && stream.candidate().is_settled(now, is_current) {
                add(&mut ladder, place, &rates, 0, wanted);
            }
        }
        if ladder.top().is_none() {
            let target = layer::target(now, streams().map(Stream::candidate), last, current);
            let only = (0_u8..).zip(streams()).find(|(place, _)| target == Some((*place).into()));
            if let Some((place, stream)) = only {
                add(&mut ladder, place, &stream.layer_rates(now), 0, wanted);
            }
        }
        ladder
    }

    /// Takes what the sharing gave one consumer.
    fn grant(&mut self, now: Instant, claim: &Claim, why: WhyLayer) {
        let Some(consumer) = self.consumers.get_mut(claim.consumer) else { return };
        let producer_key = consumer.producer;
        // Where nothing arrives that could be measured: of several streams the lowest is waited for;
        // one with layers inside comes whole, down is a matter of the next picture.
        let spatial = if consumer.simulcast { 0 } else { u8::MAX };
        let nothing = claim.ladder.top().is_none();
        let waited = nothing.then_some(LayerTarget { spatial, ..LayerTarget::HIGHEST });
        if nothing && consumer.allowed.is_some() {
            // When something does, it goes on as it was.
            if !self.is_alive(now, producer_key)
                && let Some(consumer) = self.consumers.get_mut(claim.consumer)
            {
                consumer.share.why = why;
            }
            return;
        }
        let allowed = claim.granted().map(|rung| rung.layers).or(waited);
        consumer.share.why = why;
        consumer.share.stopped = match allowed {
            Some(_) => None,
            None => consumer.share.stopped.or(Some(now)),
        };
        if consumer.allowed == allowed {
            return;
        }
        let lower = |old: LayerTarget, new: LayerTarget| new.spatial < old.spatial;
        let outgoing = self.transports.get(consumer.transport).and_then(|t| t.outgoing.as_ref());
        if let Some(new) = allowed {
            let old = consumer.allowed.unwrap_or(new);
            // On the way down bits are saved at once, on the way up nothing is lost meanwhile.
            if lower(old, new) {
                consumer.meanwhile = 0;
                consumer.goes_down = true;
                let streams = self.producers.get(producer_key).map(|p| p.streams.iter());
                let kept = streams.into_iter().flatten().take(usize::from(new.spatial) + 1);
                let playing = consumer.playing.map(|playing| playing.stream);
                let is_left =
                    consumer.simulcast && !kept.map(|it| Some(*it)).any(|it| it == playing);
                if is_left && outgoing.is_some_and(|outgoing| outgoing.estimator().is_losing()) {
                    // What comes through of it is not whole, and takes the place of the key frame
                    // that is waited for.
                    consumer.playing = None;
                }
            } else if lower(new, old) {
                consumer.meanwhile = consumer.target.temporal;
                consumer.goes_down = false;
            }
            consumer.target = new.min_each(consumer.preferred());
        }
        consumer.allowed = allowed;
        let is_idle = consumer.playing.is_none();
        self.choose_layer(now, producer_key, claim.consumer);
        if is_idle {
            // Whatever was played is perhaps wanted by nobody now.
            self.note_demand(producer_key);
            self.cancel_unwanted_key_frames(producer_key);
        }
    }

    /// True while a picture of a producer may come at any moment.
    fn is_alive(&self, now: Instant, key: ProducerKey) -> bool {
        let streams = self.producers.get(key).map(|producer| producer.streams.iter());
        let mut streams = streams.into_iter().flatten().filter_map(|key| self.streams.get(*key));
        streams.any(|stream| stream.activity.is_alive(now))
    }

    fn why_shared(&self, now: Instant, key: TransportKey, claim: &Claim) -> WhyLayer {
        let outgoing = self.transports.get(key).and_then(|t| t.outgoing.as_ref());
        let Some(outgoing) = outgoing else { return WhyLayer::default() };
        let mut why = outgoing.why(now, claim);
        if why.reason == Reason::Preferred
            && let Some(consumer) = self.consumers.get(claim.consumer)
            && let Some(producer) = self.producers.get(consumer.producer)
        {
            why.reason = self.why_no_higher(now, consumer, producer, why.layers);
        }
        why
    }

    /// Why a consumer is not given more than `granted`, though it might be sent.
    fn why_no_higher(
        &self,
        now: Instant,
        consumer: &Consumer,
        producer: &Producer,
        granted: Option<LayerTarget>,
    ) -> Reason {
        let Some(granted) = granted else { return Reason::NotArriving };
        let streams = u8::try_from(producer.streams.len()).unwrap_or(u8::MAX);
        let wanted = consumer.preferred().spatial.min(streams.saturating_sub(1));
        if granted.spatial >= wanted {
            return Reason::Preferred;
        }
        let above = producer.streams.iter().skip(usize::from(granted.spatial) + 1);
        let arrives = above
            .take(usize::from(wanted - granted.spatial))
            .filter_map(|key| self.streams.get(*key))
            .any(|stream| stream.activity.arrives(now));
        if arrives { Reason::Young } else { Reason::NotArriving }
    }

    /// Why a consumer is sent what it is sent, for statistics.
    pub(super) fn why_layers(&self, key: ConsumerKey) -> Option<WhyLayers> {
        let consumer = self.consumers.get(key)?;
        let producer = self.producers.get(consumer.producer)?;
        let transport = self.transports.get(consumer.transport)?;
        let why = &consumer.share.why;
        let reason = if consumer.paused || producer.paused {
            Reason::Paused
        } else if !transport.can_send() {
            Reason::NotConnected
        } else {
            why.reason
        };
        let known = |bps: &u64| *bps < u64::MAX && transport.outgoing.is_some();
        Some(WhyLayers {
            reason: reason.label(),
            granted_bitrate: why.bps,
            needed_bitrate: Some(why.needed_bps).filter(|bps| *bps > 0),
            available_bitrate: Some(why.available_bps).filter(known),
        })
    }

    /// The layers that a consumer is being sent; `None` while it is sent nothing.
    pub(super) fn layers_sent(&self, now: Instant, consumer: &Consumer) -> Option<Layers> {
        let producer = self.producers.get(consumer.producer)?;
        let playing = consumer.playing?;
        let stream = self.streams.get(playing.stream)?;
        if !stream.activity.is_alive(now) {
            return None;
        }
        let inside = consumer.select.layers(&stream.layers);
        let place = producer.streams.iter().position(|key| *key == playing.stream)?;
        let spatial =
            if producer.streams.len() > 1 { place.try_into().ok()? } else { inside.spatial };
        Some(Layers { spatial, temporal: inside.temporal })
    }

    /// Tells the control thread of the layers that a consumer is sent, if they are others and there
    /// is more than one.
    pub(super) fn tell_layers(&mut self, now: Instant, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get(key) else { return };
        if !self.producers.get(consumer.producer).is_some_and(Producer::is_layered) {
            return;
        }
        let layers = self.layers_sent(now, consumer);
        if layers == consumer.share.told {
            return;
        }
        let id = consumer.id;
        if let Some(consumer) = self.consumers.get_mut(key) {
            consumer.share.told = layers;
        }
        self.tell(Event::ConsumerLayers { consumer: id, layers });
    }
}

/// One spatial layer of a consumer onto its ladder, `inside` of the stream with these rates.
fn add(ladder: &mut Ladder, spatial: u8, rates: &LayerRates, inside: u8, wanted: LayerTarget) {
    let mut bps = [0; TEMPORAL_LAYERS_MAX as usize];
    let mut len = 0;
    for (place, rate) in bps.iter_mut().zip(rates.cumulative(inside)) {
        *place = on_wire(rate);
        len += 1;
    }
    ladder.add(spatial, bps.get(..len).unwrap_or_default(), wanted);
}

/// What payloads of so many bits/s take with headers and tags.
fn on_wire(bps: u64) -> u64 {
    bps + bps * VIDEO_OVERHEAD_PERCENT / 100
}
