//! Two sessions on one virtual clock, with a network between them that delays, loses, copies and forges.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use yodel_media::{
    AudioEnd, Ends, FRAME_SAMPLES, MediaEvent, MediaKeys, NarrowCodec, Opened, Session, SessionConfig,
    SessionOutput,
};
use yodel_wire::time::{Instant, Now, UnixTime};

fn now(ms: u64) -> Now {
    Now { mono: Instant::from_micros(1_000_000 + ms * 1_000), unix: UnixTime::from_secs(1_700_000_000) }
}

/// A level that changes each frame: `play` tells which frame is heard.
#[derive(Clone, Default)]
struct Recorder {
    captured: Arc<Mutex<u32>>,
    played: Arc<Mutex<Vec<(f32, bool)>>>,
    mute_mic: bool,
    finished: Arc<Mutex<u32>>,
}

fn level(frame: u32) -> f32 {
    (10 + frame % 100) as f32 / 127.0
}

impl AudioEnd for Recorder {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        let mut count = self.captured.lock().unwrap();
        pcm.fill(if self.mute_mic { 0.0 } else { level(*count) });
        *count += 1;
    }
    fn play(&mut self, pcm: &[f32; FRAME_SAMPLES], heard: bool) {
        self.played.lock().unwrap().push((pcm[480], heard));
    }
    fn mic_silent(&self) -> bool {
        self.mute_mic
    }
    fn finish(&mut self) {
        *self.finished.lock().unwrap() += 1;
    }
}

struct End {
    session: Session,
    recorder: Recorder,
    events: Vec<(u64, MediaEvent)>,
    sent: u64,
}

impl End {
    fn new(keys: MediaKeys, recorder: Recorder) -> End {
        let audio = Ends::Audio { codec: Box::new(NarrowCodec::new()), end: Box::new(recorder.clone()) };
        let session = Session::new(now(0), SessionConfig { keys, audio }, [3; 32]);
        End { session, recorder, events: Vec::new(), sent: 0 }
    }

    fn told(&self, wanted: impl Fn(&MediaEvent) -> bool) -> Option<u64> {
        self.events.iter().find(|(_, event)| wanted(event)).map(|(at, _)| *at)
    }
}

struct Pair {
    ends: [End; 2],
    wire: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    serial: u64,
}

impl Pair {
    fn new() -> Pair {
        Pair::with(Recorder::default(), Recorder::default())
    }

    fn with(a: Recorder, b: Recorder) -> Pair {
        let keys = MediaKeys { send: [1; 32], receive: [2; 32] };
        let ends = [End::new(keys.clone(), a), End::new(keys.swapped(), b)];
        Pair { ends, wire: BTreeMap::new(), serial: 0 }
    }

    /// Runs from `from` to `to` ms; `network(ms, to_end, number)` is the transit in ms, `None` loses the packet.
    fn run(&mut self, from: u64, to: u64, mut network: impl FnMut(u64, usize, u64) -> Option<u64>) {
        for ms in from..to {
            while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= ms) {
                let (to, packet) = entry.remove();
                let opened = self.ends[to].session.handle_packet(now(ms), &packet);
                assert!(opened.authentic());
                assert_eq!(self.ends[to].session.handle_packet(now(ms), &packet), Opened::Refused, "a copy");
            }
            for at in 0..2 {
                if self.ends[at].session.deadline().is_some_and(|d| d <= now(ms).mono) {
                    self.ends[at].session.handle_timeout(now(ms));
                }
                while let Some(output) = self.ends[at].session.poll_output() {
                    match output {
                        SessionOutput::Event(event) => self.ends[at].events.push((ms, event)),
                        SessionOutput::Packet(packet) => {
                            assert_eq!(
                                Session::ssrc_of(&packet),
                                Some(self.ends[1 - at].session.receive_ssrc())
                            );
                            let number = self.ends[at].sent;
                            self.ends[at].sent += 1;
                            if let Some(transit) = network(ms, 1 - at, number) {
                                self.serial += 1;
                                self.wire.insert((ms + transit, self.serial), (1 - at, packet));
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn both_hear_every_frame_in_order_and_on_time() {
    let mut pair = Pair::new();
    pair.run(0, 10_000, |_, _, _| Some(30));
    for end in &pair.ends {
        let played = end.recorder.played.lock().unwrap();
        assert_eq!(played.len(), 500, "one frame per 20 ms from the start");
        let first = played.iter().position(|(_, heard)| *heard).unwrap();
        assert!(first <= 3, "first sound after {first} frames at 30 ms of network");
        for (n, (sample, heard)) in played[first..].iter().enumerate() {
            assert!(*heard);
            assert!((sample - level(n as u32)).abs() < 0.005);
        }
        assert_eq!(end.told(|e| *e == MediaEvent::FirstPacket), Some(30));
        assert!(end.told(|e| *e == MediaEvent::BothWays).unwrap() < 500);
        assert_eq!(end.told(|e| matches!(e, MediaEvent::OneWay { .. })), None);
        let stats: Vec<_> = end
            .events
            .iter()
            .filter_map(|(at, e)| if let MediaEvent::Stats(s) = e { Some((at, s)) } else { None })
            .collect();
        assert_eq!(stats.len(), 9);
        let (_, last) = stats.last().unwrap();
        assert_eq!((last.loss, last.concealed), (0.0, 0));
        assert!((59.0..=62.0).contains(&last.rtt_ms.unwrap()), "{last:?}");
        assert!((30.0..=60.0).contains(&last.delay_ms), "{last:?}");
        assert!((440..=450).contains(&last.rx_packets) && last.tx_packets >= 450, "{last:?}");
    }
}

#[test]
fn one_way_is_known_to_both_within_two_seconds_when_reports_get_through() {
    let mut pair = Pair::new();
    // Of what end 0 sends, only reports (100 bytes at most) arrive; a firewall that knows RTP.
    let mut told = [None; 2];
    for ms in 0..2_000 {
        let mut lost = Vec::new();
        pair.run(ms, ms + 1, |_, _, _| Some(10));
        pair.wire.retain(|_, (to, packet)| {
            let keep = *to == 0 || packet[1] != 96;
            if !keep {
                lost.push(());
            }
            keep
        });
        for (end, told) in pair.ends.iter().zip(&mut told) {
            *told = told.or(end.told(|e| matches!(e, MediaEvent::OneWay { .. })));
        }
    }
    let state = |end: &End| {
        end.events.iter().rev().find(|(_, e)| matches!(e, MediaEvent::OneWay { .. })).map(|e| e.1)
    };
    assert_eq!(
        state(&pair.ends[0]),
        Some(MediaEvent::OneWay { hears_us: false, we_hear: true, reported: true })
    );
    assert_eq!(
        state(&pair.ends[1]),
        Some(MediaEvent::OneWay { hears_us: true, we_hear: false, reported: true })
    );
    assert!(told.iter().all(|at| at.unwrap() < 2_000), "{told:?}");
    // Mended: both are told.
    pair.run(2_000, 3_000, |_, _, _| Some(10));
    for end in &pair.ends {
        assert!(end.told(|e| *e == MediaEvent::BothWays).unwrap() < 2_700);
    }
}

#[test]
fn a_dead_direction_is_told_and_a_report_by_another_way_completes_it() {
    let mut pair = Pair::new();
    pair.run(0, 1_600, |_, to, _| (to == 0).then_some(10));
    assert_eq!(
        pair.ends[1].events.last().map(|e| e.1),
        Some(MediaEvent::OneWay { hears_us: false, we_hear: false, reported: false })
    );
    assert_eq!(
        pair.ends[0].events.iter().rev().find(|(_, e)| !matches!(e, MediaEvent::Stats(_))).map(|e| e.1),
        Some(MediaEvent::OneWay { hears_us: false, we_hear: true, reported: true })
    );
    let report = pair.ends[0].session.sealed_report(now(1_600)).unwrap();
    assert_eq!(pair.ends[1].session.handle_packet(now(1_620), &report), Opened::Control);
    pair.run(1_620, 1_630, |_, to, _| (to == 0).then_some(10));
    assert_eq!(
        pair.ends[1].events.last().map(|e| e.1),
        Some(MediaEvent::OneWay { hears_us: true, we_hear: false, reported: true })
    );
}

#[test]
fn sound_that_stops_is_noticed_and_concealed_until_it_returns() {
    let mut pair = Pair::new();
    let cut = |ms: u64, to: usize| to == 1 && (3_000..5_000).contains(&ms);
    pair.run(0, 6_000, |ms, to, _| (!cut(ms, to)).then_some(20));
    let deaf = pair.ends[1].told(|e| matches!(e, MediaEvent::OneWay { we_hear: false, .. })).unwrap();
    assert!((3_900..4_200).contains(&deaf), "{deaf}");
    let unheard = pair.ends[0]
        .told(|e| matches!(e, MediaEvent::OneWay { hears_us: false, we_hear: true, .. }))
        .unwrap();
    assert!((3_900..4_500).contains(&unheard), "{unheard}");
    assert_eq!(pair.ends[1].events.iter().filter(|(_, e)| *e == MediaEvent::BothWays).count(), 2);
    let played = pair.ends[1].recorder.played.lock().unwrap();
    let share = played[260..300].iter().filter(|(_, heard)| *heard).count();
    assert!(share >= 38, "heard again in time: {share} of 40");
}

#[test]
fn scattered_loss_is_repaired_by_redundancy_once_it_was_reported() {
    let mut pair = Pair::new();
    pair.run(0, 10_000, |_, _, number| (number % 10 != 7).then_some(20));
    for end in &pair.ends {
        let played = end.recorder.played.lock().unwrap();
        let heard = played[150..].iter().filter(|(_, heard)| *heard).count();
        assert!(heard >= 345, "{heard} of 350 at 10 % loss");
        let stats = end.session.stats();
        assert!((0.04..=0.16).contains(&stats.peer_loss), "{stats:?}");
    }
}

#[test]
fn silent_microphone_is_told_apart_from_a_silent_network() {
    let mut pair = Pair::with(Recorder { mute_mic: true, ..Recorder::default() }, Recorder::default());
    pair.run(0, 2_000, |_, _, _| Some(10));
    assert!(pair.ends[0].told(|e| *e == MediaEvent::MicSilent { ours: true, peers: false }).is_some());
    assert!(pair.ends[1].told(|e| *e == MediaEvent::MicSilent { ours: false, peers: true }).is_some());
    for end in &pair.ends {
        assert!(end.told(|e| *e == MediaEvent::BothWays).is_some());
        assert!(end.told(|e| matches!(e, MediaEvent::OneWay { .. })).is_none());
    }
}

#[test]
fn bye_is_told_once_survives_loss_and_ends_the_audio() {
    let mut pair = Pair::new();
    pair.run(0, 1_000, |_, _, _| Some(10));
    pair.ends[0].session.send_bye(now(1_000), 9);
    pair.ends[0].session.send_bye(now(1_000), 9);
    let sent = pair.ends[0].sent;
    pair.run(1_000, 1_300, |_, _, number| (number > sent).then_some(10));
    assert_eq!(pair.ends[0].sent - sent, 3);
    assert_eq!(pair.ends[0].session.deadline(), None);
    let byes = pair.ends[1].events.iter().filter(|(_, e)| matches!(e, MediaEvent::PeerBye { .. }));
    assert_eq!(byes.map(|(_, e)| *e).collect::<Vec<_>>(), [MediaEvent::PeerBye { reason: 9 }]);
    let recorder = pair.ends[0].recorder.clone();
    assert_eq!(recorder.played.lock().unwrap().len(), 50);
    drop(pair);
    assert_eq!(*recorder.finished.lock().unwrap(), 1);
}

#[test]
fn echo_returns_frames_as_they_are() {
    let keys = MediaKeys { send: [1; 32], receive: [2; 32] };
    let mut end = End::new(keys.clone(), Recorder::default());
    let config = SessionConfig { keys: keys.swapped(), audio: Ends::Echo };
    let mut echo = Session::new(now(0), config, [0; 32]);
    let mut back = Vec::new();
    for ms in 0..3_000u64 {
        end.session.handle_timeout(now(ms));
        echo.handle_timeout(now(ms));
        while let Some(output) = end.session.poll_output() {
            match output {
                SessionOutput::Packet(packet) => assert!(echo.handle_packet(now(ms), &packet).authentic()),
                SessionOutput::Event(event) => end.events.push((ms, event)),
            }
        }
        while let Some(output) = echo.poll_output() {
            if let SessionOutput::Packet(packet) = output {
                back.push((ms + 40, packet));
            }
        }
        back.retain(|(due, packet)| {
            if *due <= ms {
                assert!(end.session.handle_packet(now(ms), packet).authentic());
            }
            *due > ms
        });
    }
    let played = end.recorder.played.lock().unwrap();
    let first = played.iter().position(|(_, heard)| *heard).unwrap();
    assert!(first <= 4);
    for (n, (sample, heard)) in played[first..].iter().enumerate() {
        assert!(*heard && (sample - level(n as u32)).abs() < 0.005, "frame {n}");
    }
    assert!(end.told(|e| *e == MediaEvent::BothWays).unwrap() < 500);
}

#[test]
fn foreign_packets_change_nothing() {
    let mut pair = Pair::new();
    pair.run(0, 500, |_, _, _| Some(10));
    pair.ends[0].session.handle_timeout(now(500));
    let mut packets = Vec::new();
    while let Some(output) = pair.ends[0].session.poll_output() {
        if let SessionOutput::Packet(packet) = output {
            packets.push(packet);
        }
    }
    let before = format!("{:?}", pair.ends[1].session.stats());
    let deadline = pair.ends[1].session.deadline();
    for packet in &packets {
        for at in 0..packet.len() {
            let mut forged = packet.clone();
            forged[at] ^= 0x40;
            assert_eq!(pair.ends[1].session.handle_packet(now(500), &forged), Opened::Refused);
            assert_eq!(pair.ends[1].session.handle_packet(now(500), &packet[..at]), Opened::Refused);
        }
        // Our own packet thrown back at us.
        assert_eq!(pair.ends[0].session.handle_packet(now(500), packet), Opened::Refused);
    }
    for junk in [&[][..], &[0x80], &[0x80; 11], &[0x80; 12], &[0xbf; 1_200]] {
        assert_eq!(pair.ends[1].session.handle_packet(now(500), junk), Opened::Refused);
    }
    assert_eq!(format!("{:?}", pair.ends[1].session.stats()), before);
    assert_eq!(pair.ends[1].session.deadline(), deadline);
    assert!(pair.ends[1].session.poll_output().is_none());
    for packet in &packets {
        assert!(pair.ends[1].session.handle_packet(now(500), packet).authentic());
    }
}

#[test]
fn ticks_never_drift_and_sleep_is_filled_with_silence() {
    let mut end = End::new(MediaKeys { send: [1; 32], receive: [2; 32] }, Recorder::default());
    let mut at = 0;
    for step in 1..400u64 {
        end.session.handle_timeout(now(at));
        at += 11 + step % 23;
        while end.session.poll_output().is_some() {}
    }
    let ticks = end.recorder.played.lock().unwrap().len() as u64;
    assert!(ticks * 20 <= at + 20 && ticks * 20 + 60 >= at, "{ticks} ticks in {at} ms");
    // The machine sleeps for a minute: the recording keeps real time, and no minute of audio is sent.
    at += 60_000;
    end.session.handle_timeout(now(at));
    let ticks = end.recorder.played.lock().unwrap().len() as u64;
    assert!(ticks * 20 <= at + 20 && ticks * 20 + 40 >= at, "{ticks} ticks in {at} ms");
    let mut burst = 0;
    while let Some(output) = end.session.poll_output() {
        burst += usize::from(matches!(output, SessionOutput::Packet(_)));
    }
    assert!(burst <= 28, "{burst}");
    // A day: the clock starts anew instead of writing a day of silence.
    at += 86_400_000;
    end.session.handle_timeout(now(at));
    assert!((end.recorder.played.lock().unwrap().len() as u64) < ticks + 3);
}

#[test]
fn a_pause_longer_than_half_the_sequence_space_is_survived() {
    let mut pair = Pair::new();
    pair.run(0, 400, |_, _, _| Some(5));
    // 33,000 frames are lost one way; one report gets through, then sound again.
    let mut clock = 400;
    for _ in 0..33_000 {
        pair.ends[0].session.handle_timeout(now(clock));
        while pair.ends[0].session.poll_output().is_some() {}
        clock += 20;
    }
    let report = pair.ends[0].session.sealed_report(now(clock)).unwrap();
    assert_eq!(pair.ends[1].session.handle_packet(now(clock), &report), Opened::Control);
    pair.ends[0].session.handle_timeout(now(clock));
    let mut audio = 0;
    while let Some(output) = pair.ends[0].session.poll_output() {
        if let SessionOutput::Packet(packet) = output {
            audio += usize::from(pair.ends[1].session.handle_packet(now(clock), &packet) == Opened::Audio);
        }
    }
    assert!(audio >= 1);
}

#[test]
fn a_peer_that_means_harm_breaks_nothing() {
    use yodel_media::seal::{Sealer, Stream, ssrc};
    use yodel_media::{report, rtp};

    let mut state = 0x1234_5678_9abc_def0u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut end = End::new(MediaKeys { send: [1; 32], receive: [2; 32] }, Recorder::default());
    let mut audio = Sealer::new(&[2; 32], Stream::Audio);
    let mut control = Sealer::new(&[2; 32], Stream::Control);
    let ssrc = ssrc(&[2; 32]);
    let mut clock = 0;
    for _ in 0..20_000 {
        let body: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        let mut packet;
        if random() % 3 > 0 {
            let timestamp = match random() % 4 {
                0 => random() as u32,
                1 => u32::MAX - (random() % 5_000) as u32,
                _ => (clock * 48) as u32,
            };
            let header = rtp::Header { sequence: audio.next_index() as u16, timestamp, ssrc };
            packet = header.encode().to_vec();
            packet.extend_from_slice(&body);
            audio.seal(&mut packet, rtp::HEADER_BYTES).unwrap();
        } else {
            let kind = if random() % 2 == 0 { report::Kind::Report } else { report::Kind::Bye };
            let header = report::Header { kind, ssrc, index: control.next_index() as u32 };
            packet = header.encode().to_vec();
            packet.extend_from_slice(&body);
            control.seal(&mut packet, report::HEADER_BYTES).unwrap();
        }
        // A wild report may move where sequence numbers are looked for, so not all of it opens.
        end.session.handle_packet(now(clock), &packet);
        clock += random() % 30;
        end.session.handle_timeout(now(clock));
        let mut outputs = 0;
        while end.session.poll_output().is_some() {
            outputs += 1;
        }
        assert!(outputs < 20);
    }
    let ticks = end.recorder.played.lock().unwrap().len() as u64;
    assert!((clock / 20).abs_diff(ticks) <= 1);
}
