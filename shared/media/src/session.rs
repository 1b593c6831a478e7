//! The media of one leg, from the answer to its end.
//!
//! Feed: [`handle_packet`](Session::handle_packet) every datagram with first byte 128–191 whose SSRC is
//! [`receive_ssrc`](Session::receive_ssrc), whatever path it came by; [`handle_timeout`](Session::handle_timeout) when
//! [`deadline`](Session::deadline) has passed; [`set_path`](Session::set_path) when the path changed. After each, drain
//! [`poll_output`](Session::poll_output) until `None` and send every packet over the path chosen now. Sending begins
//! with the session and the ticks are absolute: tick *n* is at start + *n* · 20 ms, however late the calls come.
//!
//! It never looks at addresses, never waits, and a packet that does not open changes nothing. Dropping it ends the
//! audio; [`send_bye`](Session::send_bye) tells the peer first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use yodel_wire::time::{Instant, Now};

use crate::ends::{Ends, FRAME, FRAME_SAMPLES};
use crate::figures::{Mark, Received, RoundTrip, Stats};
use crate::hearing::{Heard, Hearing};
use crate::limits::{
    BYE_REPEATS, CATCH_UP_TICKS, FILL_TICKS_MAX, OUTPUTS_MAX, PAYLOAD_BYTES_MAX, REPORT_EARLY_FOR,
    REPORT_INTERVAL, REPORT_INTERVAL_EARLY, REPORT_TIMES_MAX, STATS_INTERVAL,
};
use crate::playout::Player;
use crate::report::{self, Bye, Report};
use crate::rtp;
use crate::seal::{MediaKeys, Opener, Sealer, Stream, ssrc};

/// What a session is made of.
#[derive(Debug)]
pub struct SessionConfig {
    /// From the call's handshake.
    pub keys: MediaKeys,
    /// Codec and audio end, or echo.
    pub audio: Ends,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An authentic frame.
    Audio,
    /// An authentic report or BYE.
    Control,
    /// Not the peer's, changed, replayed or too old. Nothing moved.
    Refused,
}

impl Opened {
    /// Whether the peer sealed it, so that its path is alive.
    pub fn authentic(self) -> bool {
        match self {
            Opened::Audio | Opened::Control => true,
            Opened::Refused => false,
        }
    }
}

/// What a session wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionOutput {
    /// Send this sealed packet over the chosen path.
    Packet(Vec<u8>),
    /// Something to know.
    Event(MediaEvent),
}

/// What a session tells its call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MediaEvent {
    /// The first audio packet of the peer was opened.
    FirstPacket,
    /// Quality, once a second.
    Stats(Stats),
    /// Each hears the other: at first, and again after a `OneWay`.
    BothWays,
    /// At least one direction carries no sound. Told 1.25 s after the start at the earliest, and at each change.
    OneWay {
        /// The peer reported that it hears us.
        hears_us: bool,
        /// Audio of the peer was opened within the last second.
        we_hear: bool,
        /// A report of the peer younger than 3 s stands behind `hears_us`. Without one, give the peer our
        /// [`sealed_report`](Session::sealed_report) another way, as it may do for us.
        reported: bool,
    },
    /// Whose microphone gives nothing at all, at each change.
    MicSilent {
        /// Ours.
        ours: bool,
        /// The peer's, as it reported.
        peers: bool,
    },
    /// The peer ended the call over the media path. Told once.
    PeerBye {
        /// The number the peer gave to `send_bye`; its meaning is the call's.
        reason: u8,
    },
}

/// See the module's text.
pub struct Session {
    send_ssrc: u32,
    receive_ssrc: u32,
    audio_out: Sealer,
    control_out: Sealer,
    audio_in: Opener,
    control_in: Opener,
    audio: Ends,

    start: Instant,
    period: Duration,
    tick: u64,
    clock: u64,
    sending: bool,
    muted: bool,
    finished: bool,

    player: Player,
    received: Received,
    timestamp: u64,
    stats_mark: Mark,
    report_mark: Mark,
    sent: u64,
    peer_loss: f32,
    told_loss: u8,
    rtt: RoundTrip,

    hearing: Hearing,
    mics: (bool, bool),
    next_report: Instant,
    next_stats: Instant,
    report_times: BTreeMap<u32, Instant>,
    peer_report: Option<(u32, Instant)>,
    bye: VecDeque<(Instant, u8)>,
    peer_bye: bool,
    out: VecDeque<SessionOutput>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("tick", &self.tick)
            .field("audio", &self.audio)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Begins at `now`: the first frame is captured and sent at once. The seed spreads the reports of many sessions.
    pub fn new(now: Now, config: SessionConfig, seed: [u8; 32]) -> Session {
        let SessionConfig { keys, audio } = config;
        let [spread, ..] = seed;
        let period = match &audio {
            Ends::Audio { .. } => FRAME,
            Ends::Echo => Duration::from_millis(50),
        };
        Session {
            send_ssrc: ssrc(&keys.send),
            receive_ssrc: ssrc(&keys.receive),
            audio_out: Sealer::new(&keys.send, Stream::Audio),
            control_out: Sealer::new(&keys.send, Stream::Control),
            audio_in: Opener::new(&keys.receive, Stream::Audio),
            control_in: Opener::new(&keys.receive, Stream::Control),
            audio,
            start: now.mono,
            period,
            tick: 0,
            clock: 0,
            sending: true,
            muted: false,
            finished: false,
            player: Player::default(),
            received: Received::default(),
            timestamp: 0,
            stats_mark: Mark::default(),
            report_mark: Mark::default(),
            sent: 0,
            peer_loss: 0.0,
            told_loss: 0,
            rtt: RoundTrip::default(),
            hearing: Hearing::new(now.mono),
            mics: (false, false),
            next_report: now.mono + Duration::from_millis(100 + u64::from(spread) / 2),
            next_stats: now.mono + STATS_INTERVAL,
            report_times: BTreeMap::new(),
            peer_report: None,
            bye: VecDeque::new(),
            peer_bye: false,
            out: VecDeque::new(),
        }
    }

    /// The SSRC on every packet of the peer: tells whose a datagram is.
    pub fn receive_ssrc(&self) -> u32 {
        self.receive_ssrc
    }

    /// The SSRC of a datagram with first byte 128–191, before anything is opened.
    pub fn ssrc_of(packet: &[u8]) -> Option<u32> {
        let audio = rtp::Header::parse(packet).map(|(header, ..)| header.ssrc);
        audio.or_else(|| report::Header::parse(packet).map(|(header, ..)| header.ssrc))
    }

    /// A packet arrived.
    pub fn handle_packet(&mut self, now: Now, packet: &[u8]) -> Opened {
        if let Some((header, head, sealed)) = rtp::Header::parse(packet) {
            return self.handle_audio(now.mono, header, head, sealed);
        }
        if let Some((header, head, sealed)) = report::Header::parse(packet) {
            return self.handle_control(now.mono, header, head, sealed);
        }
        Opened::Refused
    }

    /// Whether frames are sent. Ticks go on either way, and so do reports.
    pub fn set_sending(&mut self, sending: bool) {
        self.sending = sending;
    }

    /// Whether silence is sent in place of what is captured.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// The path changed; its round trip, where a check measured it.
    pub fn set_path(&mut self, _now: Now, rtt: Option<Duration>) {
        self.rtt.restart(rtt);
        self.player.jitter.path_changed();
    }

    /// Tells the peer over the media path that the call is over; stops the audio. Repeated twice within 120 ms if
    /// driven on.
    pub fn send_bye(&mut self, now: Now, reason: u8) {
        if self.bye.is_empty() {
            self.push_control(now.mono, report::Kind::Bye, &Bye { reason }.encode());
            self.bye.extend(BYE_REPEATS.map(|after| (now.mono + after, reason)));
        }
        self.finish();
    }

    /// Ends the audio: what is recorded is complete. BYE is still repeated and packets are still opened.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true)
            && let Ends::Audio { end, .. } = &mut self.audio
        {
            end.finish();
        }
    }

    /// A report sealed like any other, to be carried by another way (inside signalling) when the media path is deaf
    /// in one direction. The peer feeds it to `handle_packet`.
    pub fn sealed_report(&mut self, now: Now) -> Option<Vec<u8>> {
        let report = self.report(now.mono);
        self.seal_control(now.mono, report::Kind::Report, &report.encode())
    }

    /// Quality up to now.
    pub fn stats(&self) -> Stats {
        let mut mark = self.stats_mark;
        self.figures(self.received.loss_since(&mut mark))
    }

    /// Whether audio of the peer was opened within the last second, and whether the peer reported to hear us.
    pub fn hearing(&self, now: Now) -> (bool, bool) {
        let Heard { we_hear, hears_us, .. } = self.hearing.state(now.mono);
        (we_hear, hears_us)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        let tick = (!self.finished).then(|| self.next_tick());
        let bye = self.bye.front().map(|(at, _)| *at);
        [tick, bye].into_iter().flatten().min()
    }

    /// Carries out every tick that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.mono;
        while let Some((_, reason)) = self.bye.front().copied().filter(|(at, _)| *at <= now) {
            self.bye.pop_front();
            self.push_control(now, report::Kind::Bye, &Bye { reason }.encode());
        }
        while !self.finished && self.next_tick() <= now {
            let behind = (now.since(self.next_tick()).as_micros() / self.period.as_micros()) as u64;
            let at = self.next_tick();
            if behind > FILL_TICKS_MAX {
                self.start = now;
                self.tick = 0;
                self.player.jitter.reset();
                continue;
            }
            self.tick += 1;
            self.clock += 1;
            if behind > CATCH_UP_TICKS { self.skip_tick() } else { self.audio_tick(at) }
        }
        if !self.finished {
            self.periodic(now);
        }
    }

    /// The next thing to carry out; `None` when drained.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.out.pop_front()
    }

    fn next_tick(&self) -> Instant {
        self.start + Duration::from_micros(self.period.as_micros() as u64 * self.tick)
    }

    fn push(&mut self, output: SessionOutput) {
        if self.out.len() >= OUTPUTS_MAX {
            self.out.pop_front();
        }
        self.out.push_back(output);
    }

    fn event(&mut self, event: MediaEvent) {
        self.push(SessionOutput::Event(event));
    }

    // Receiving.

    fn handle_audio(&mut self, now: Instant, header: rtp::Header, head: &[u8], sealed: &[u8]) -> Opened {
        if header.ssrc != self.receive_ssrc {
            return Opened::Refused;
        }
        let index = rtp::extend_sequence(self.audio_in.reference(), header.sequence);
        let mut payload = sealed.to_vec();
        let Ok(length) = self.audio_in.open(index, head, &mut payload).map(<[u8]>::len) else {
            return Opened::Refused;
        };
        payload.truncate(length);
        let timestamp = rtp::extend_timestamp(self.timestamp, header.timestamp);
        self.timestamp = self.timestamp.max(timestamp);
        self.received.packet(now, index, timestamp);
        self.hearing.audio(now);
        if self.received.packets == 1 {
            self.event(MediaEvent::FirstPacket);
            // The peer waits to know that it is heard.
            self.next_report = now;
            self.periodic(now);
        }
        match &mut self.audio {
            Ends::Echo => {
                if self.sending && !self.finished {
                    self.push_audio(header.timestamp, &payload);
                }
            }
            Ends::Audio { .. } => {
                self.player.jitter.insert(now, timestamp / FRAME_SAMPLES as u64, payload);
            }
        }
        Opened::Audio
    }

    fn handle_control(&mut self, now: Instant, header: report::Header, head: &[u8], sealed: &[u8]) -> Opened {
        if header.ssrc != self.receive_ssrc {
            return Opened::Refused;
        }
        let mut body = sealed.to_vec();
        let Ok(body) = self.control_in.open(u64::from(header.index), head, &mut body) else {
            return Opened::Refused;
        };
        match header.kind {
            report::Kind::Report => {
                if let Some(report) = Report::decode(body) {
                    self.handle_report(now, header.index, report);
                }
            }
            report::Kind::Bye => {
                if let Some(Bye { reason }) = Bye::decode(body)
                    && !std::mem::replace(&mut self.peer_bye, true)
                {
                    self.event(MediaEvent::PeerBye { reason });
                }
            }
        }
        Opened::Control
    }

    fn handle_report(&mut self, now: Instant, index: u32, report: Report) {
        // A delayed report must not overrule a newer one.
        if self.peer_report.is_some_and(|(newest, _)| newest > index) {
            return;
        }
        self.peer_report = Some((index, now));
        self.audio_in.advance_reference(u64::from(report.next));
        self.hearing.report(now, report.hears);
        if let Some((echo, held)) = report.echo
            && let Some(sent) = self.report_times.get(&echo)
        {
            let passed = now.since(*sent);
            self.rtt.sample(passed.saturating_sub(Duration::from_micros(u64::from(held))));
        }
        let loss = f32::from(report.loss) / 255.0;
        self.peer_loss = loss.max(self.peer_loss * 0.8);
        if !report.hears {
            // All is lost: that is for the path to mend, not for redundancy.
            self.peer_loss = 0.0;
        }
        let percent = (self.peer_loss * 100.0).round() as u8;
        if percent != self.told_loss
            && let Ends::Audio { codec, .. } = &mut self.audio
        {
            codec.set_loss(percent);
            self.told_loss = percent;
        }
        self.set_mics(self.mics.0, report.mic_silent);
        self.assess(now);
    }

    // Sending.

    fn audio_tick(&mut self, at: Instant) {
        let mut payload = [0; PAYLOAD_BYTES_MAX];
        let mut length = None;
        if let Ends::Audio { codec, end } = &mut self.audio {
            let mut pcm = [0.0; FRAME_SAMPLES];
            end.capture(&mut pcm);
            if self.muted {
                pcm.fill(0.0);
            }
            if self.sending {
                length = codec.encode(&pcm, &mut payload).ok();
            }
            let heard = self.player.tick(at, codec.as_mut(), &mut pcm);
            end.play(&pcm, heard);
        }
        if let Some(payload) = length.and_then(|length| payload.get(..length)) {
            let timestamp = (self.clock - 1).wrapping_mul(FRAME_SAMPLES as u64) as u32;
            self.push_audio(timestamp, payload);
        }
    }

    fn skip_tick(&mut self) {
        if let Ends::Audio { end, .. } = &mut self.audio {
            let mut pcm = [0.0; FRAME_SAMPLES];
            end.capture(&mut pcm);
            end.play(&[0.0; FRAME_SAMPLES], false);
            self.player.jitter.skip();
        }
    }

    fn push_audio(&mut self, timestamp: u32, payload: &[u8]) {
        let sequence = self.audio_out.next_index() as u16;
        let header = rtp::Header { sequence, timestamp, ssrc: self.send_ssrc };
        let mut packet = Vec::with_capacity(rtp::HEADER_BYTES + payload.len() + crate::seal::TAG_BYTES);
        packet.extend_from_slice(&header.encode());
        packet.extend_from_slice(payload);
        if self.audio_out.seal(&mut packet, rtp::HEADER_BYTES).is_ok() {
            self.sent += 1;
            self.push(SessionOutput::Packet(packet));
        }
    }

    fn seal_control(&mut self, now: Instant, kind: report::Kind, body: &[u8]) -> Option<Vec<u8>> {
        let index = u32::try_from(self.control_out.next_index()).ok()?;
        let header = report::Header { kind, ssrc: self.send_ssrc, index };
        let mut packet = header.encode().to_vec();
        packet.extend_from_slice(body);
        self.control_out.seal(&mut packet, report::HEADER_BYTES).ok()?;
        if self.report_times.len() >= REPORT_TIMES_MAX {
            self.report_times.pop_first();
        }
        self.report_times.insert(index, now);
        Some(packet)
    }

    fn push_control(&mut self, now: Instant, kind: report::Kind, body: &[u8]) {
        if let Some(packet) = self.seal_control(now, kind, body) {
            self.push(SessionOutput::Packet(packet));
        }
    }

    // What recurs.

    fn periodic(&mut self, now: Instant) {
        let ours = match &self.audio {
            Ends::Audio { end, .. } => end.mic_silent(),
            Ends::Echo => false,
        };
        self.set_mics(ours, self.mics.1);
        self.assess(now);
        if now >= self.next_report {
            let early = now.since(self.start) < REPORT_EARLY_FOR || !self.hearing.we_hear(now);
            self.next_report = now + if early { REPORT_INTERVAL_EARLY } else { REPORT_INTERVAL };
            let report = self.report(now);
            self.push_control(now, report::Kind::Report, &report.encode());
        }
        if now >= self.next_stats {
            self.next_stats += STATS_INTERVAL;
            if self.next_stats <= now {
                self.next_stats = now + STATS_INTERVAL;
            }
            let loss = self.received.loss_since(&mut self.stats_mark);
            let stats = self.figures(loss);
            self.event(MediaEvent::Stats(stats));
        }
    }

    fn assess(&mut self, now: Instant) {
        if let Some(Heard { we_hear, hears_us, reported }) = self.hearing.assess(now) {
            if we_hear && hears_us {
                self.event(MediaEvent::BothWays);
            } else {
                self.event(MediaEvent::OneWay { hears_us, we_hear, reported });
            }
            if !we_hear {
                // Tell the peer at once that it is not heard.
                self.next_report = self.next_report.min(now);
            }
        }
    }

    fn set_mics(&mut self, ours: bool, peers: bool) {
        if self.mics != (ours, peers) {
            self.mics = (ours, peers);
            self.event(MediaEvent::MicSilent { ours, peers });
        }
    }

    fn report(&mut self, now: Instant) -> Report {
        let loss = self.received.loss_since(&mut self.report_mark);
        Report {
            hears: self.hearing.we_hear(now),
            mic_silent: self.mics.0,
            loss: (loss * 255.0).round() as u8,
            buffer_ms: u16::try_from(self.player.jitter.delay().as_millis()).unwrap_or(u16::MAX),
            heard: self.received.packets as u32,
            next: self.audio_out.next_index() as u32,
            jitter: self.received.jitter(),
            echo: self
                .peer_report
                .map(|(index, at)| (index, u32::try_from(now.since(at).as_micros()).unwrap_or(u32::MAX))),
            sent: self.sent as u32,
            concealed: self.player.concealed as u32,
        }
    }

    fn figures(&self, loss: f32) -> Stats {
        let rtt_ms = self.rtt.get().map(|rtt| rtt.as_secs_f32() * 1_000.0);
        let buffer_ms = self.player.jitter.delay().as_secs_f32() * 1_000.0;
        Stats {
            loss,
            peer_loss: self.peer_loss,
            jitter_ms: self.received.jitter_ms(),
            rtt_ms,
            delay_ms: rtt_ms.unwrap_or(0.0) / 2.0 + buffer_ms,
            buffer_ms,
            tx_packets: self.sent,
            rx_packets: self.received.packets,
            concealed: self.player.concealed,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.finish();
    }
}
