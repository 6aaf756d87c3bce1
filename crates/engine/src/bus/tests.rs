//! Numbers without a hole, readers that are slow, gone or from another life, and what it costs.

use std::time::Instant;

use wharf_api::EventKind;
use wharf_model::Phase;

use super::*;

fn bus() -> Arc<Bus> {
    Arc::new(Bus::new("b00t".into()))
}

fn news(unit: &str) -> News {
    let happened = Happened::UnitPhase { from: Phase::Starting, to: Phase::Running, why: None };
    News { unit: Some(unit.parse().unwrap()), run: Some(RunId(1)), happened }
}

fn since(seq: u64) -> WatchParams {
    WatchParams { since: Some(seq), ..WatchParams::default() }
}

fn seqs(rows: &[Arc<EventRow>]) -> Vec<u64> {
    rows.iter().map(|row| row.seq).collect()
}

#[tokio::test]
async fn numbers_begin_at_one_and_have_no_hole() {
    let bus = bus();
    bus.publish((0..200).map(|_| news("redis")));
    let mut reader = bus.follow(&since(0)).unwrap();
    let mut seen = vec![];
    while seen.len() < 200 {
        seen.extend(seqs(&reader.next().await));
    }
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_from_now_on_hears_what_follows_and_one_from_before_what_it_missed() {
    let bus = bus();
    bus.publish([news("a"), news("b")]);
    let mut later = bus.follow(&WatchParams::default()).unwrap();
    let mut earlier = bus.follow(&since(1)).unwrap();
    assert!(timeout(Duration::from_millis(20), later.next()).await.is_err(), "nothing has happened since");
    bus.publish([news("c")]);
    assert_eq!(seqs(&later.next().await), [3]);
    assert_eq!(seqs(&earlier.next().await), [2, 3]);
}

#[tokio::test]
async fn a_slow_reader_is_told_one_gap_and_goes_on() {
    let bus = bus();
    let mut slow = bus.follow(&WatchParams::default()).unwrap();
    bus.publish((0..100_000).map(|_| news("redis")));
    let first = slow.next().await;
    let Happened::Gap { from, to } = first[0].happened else { panic!("{first:?}") };
    assert_eq!((from, to, first[0].seq), (1, 100_000 - MOST_EVENTS as u64, to));
    let mut seen = seqs(&first[1..]);
    while seen.last() != Some(&100_000) {
        seen.extend(seqs(&slow.next().await));
    }
    assert_eq!(seen, (to + 1..=100_000).collect::<Vec<_>>());
    let ring = bus.ring();
    assert!(ring.bytes <= MOST_BYTES && ring.events.len() <= MOST_EVENTS);
}

#[tokio::test]
async fn many_bytes_are_as_many_events() {
    let bus = bus();
    let why = Some("x".repeat(64 * 1024));
    for _ in 0..100 {
        let happened = Happened::UnitPhase { from: Phase::Starting, to: Phase::Failed, why: why.clone() };
        bus.publish([News { unit: None, run: None, happened }]);
    }
    let ring = bus.ring();
    assert!(ring.bytes <= MOST_BYTES && ring.events.len() >= 31, "{} events, {} bytes", ring.events.len(), ring.bytes);
}

#[tokio::test]
async fn a_number_of_another_life_is_told_and_reading_goes_on_from_the_oldest() {
    let bus = bus();
    bus.publish([news("a"), news("b")]);
    let other = WatchParams { boot: Some("0ther".into()), ..since(1) };
    for params in [other, since(99)] {
        let rows = bus.follow(&params).unwrap().next().await;
        let Happened::GapBoot { named, since } = &rows[0].happened else { panic!("{rows:?}") };
        assert_eq!((named, Some(*since)), (&params.boot, params.since));
        assert_eq!(seqs(&rows), [0, 1, 2]);
    }
    let ours = WatchParams { boot: Some("b00t".into()), ..since(1) };
    assert_eq!(seqs(&bus.follow(&ours).unwrap().next().await), [2]);
}

#[tokio::test]
async fn filters_choose_and_never_hide_a_gap() {
    let bus = bus();
    bus.publish((0..10_000).map(|n| news(if n % 1000 == 999 { "rare" } else { "often" })));
    let mut params = since(0);
    params.units = vec!["rare".parse().unwrap()];
    let mut reader = bus.follow(&params).unwrap();
    let mut rows = vec![];
    while rows.len() < 6 {
        rows.extend(reader.next().await);
    }
    assert!(matches!(rows[0].happened, Happened::Gap { .. }));
    assert_eq!(seqs(&rows[1..]), [6000, 7000, 8000, 9000, 10_000]);
    params.kinds = vec![EventKind::OpBegan];
    let report = bus.look(&params).await;
    assert_eq!((report.events.len(), report.next, report.more), (1, 10_000, false), "the gap alone");
}

#[tokio::test]
async fn an_answer_is_bounded_says_where_to_go_on_and_waits_for_the_first() {
    let bus = bus();
    bus.publish((0..5).map(|_| news("redis")));
    let first = bus.look(&WatchParams { limit: Some(2), ..since(0) }).await;
    assert_eq!((first.events.len(), first.next, first.more), (2, 2, true));
    let rest = bus.look(&since(first.next)).await;
    assert_eq!((rest.events.len(), rest.next, rest.more), (3, 5, false));
    let newest = bus.look(&WatchParams { limit: Some(1), ..WatchParams::default() }).await;
    assert_eq!((newest.events[0].seq, newest.next), (5, 5));

    let (told, began) = (bus.clone(), Instant::now());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        told.publish([news("redis")]);
    });
    let waited = bus.look(&WatchParams { wait_ms: 10_000, ..since(5) }).await;
    assert_eq!(waited.events[0].seq, 6);
    assert!(began.elapsed() < Duration::from_secs(5));
    let nothing = bus.look(&WatchParams { wait_ms: 30, ..since(6) }).await;
    assert_eq!((nothing.events.len(), nothing.next), (0, 6));
}

#[tokio::test]
async fn the_end_of_the_daemon_is_the_last_event_of_every_reader() {
    let bus = bus();
    let mut reader = bus.follow(&WatchParams::default()).unwrap();
    bus.close();
    assert_eq!(reader.next().await[0].happened, Happened::DaemonStopping);
    assert!(reader.next().await.is_empty());
    assert!(reader.next().await.is_empty());
}

#[tokio::test]
async fn readers_are_bounded_and_a_place_is_free_when_one_leaves() {
    let bus = bus();
    let mut readers: Vec<_> = (0..MOST_READERS).map(|_| bus.follow(&since(0)).unwrap()).collect();
    let refused = bus.follow(&since(0)).err().expect("one too many");
    assert!(refused.retryable && refused.hint.is_some());
    readers.pop();
    assert!(bus.follow(&since(0)).is_ok());
}

#[tokio::test]
async fn a_full_disk_is_told_once_and_so_is_its_end() {
    let bus = bus();
    for has_room in [true, true, false, false, true, true] {
        bus.disk(has_room);
    }
    let kinds: Vec<_> = bus.look(&since(0)).await.events.iter().map(|row| row.happened.kind()).collect();
    assert_eq!(kinds, [EventKind::DiskLow, EventKind::DiskFreed]);
}

/// The loop publishes while it holds up everybody: the figure is printed, the bound is generous.
#[test]
fn what_an_event_costs_the_loop() {
    let count = 100_000_u32;
    for readers in [0, 100] {
        let bus = bus();
        let _held: Vec<_> = (0..readers).map(|_| bus.follow(&WatchParams::default()).unwrap()).collect();
        let began = Instant::now();
        for _ in 0..count {
            bus.publish([news("redis")]);
        }
        let each = began.elapsed() / count;
        println!("an event, with {readers} readers that read nothing: {each:?}");
        assert!(each < Duration::from_micros(100), "{each:?}");
    }
}
