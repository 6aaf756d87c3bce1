//! Boards that a reader can follow.

use super::*;

#[test]
fn the_smallest_hole_that_is_big_enough_is_taken_and_strangers_are_shunned() {
    let board = board(&[(48, 0), (24, 0), (16, 1), (20, 0)], vec![]);
    let placed = |bytes| fits(plan(&board, &asker(&need(1, bytes)), BUDGET)).on;
    assert_eq!(placed(15), [(3, 15)], "20 leaves 5; 16 would leave 0, and a stranger is there");
    assert_eq!(placed(22), [(1, 22)]);
    assert_eq!(placed(30), [(0, 30)]);
    assert_eq!(fits(plan(&board, &asker(&need(2, 15)), BUDGET)).on, [(1, 15), (3, 15)]);
}

#[test]
fn devices_that_reach_each_other_are_taken_together() {
    let mut board = board(&[(48, 0); 6], vec![]);
    for (at, place) in board.places.iter_mut().enumerate() {
        (place.island, place.numa) = ([None, Some(1), Some(2), None, Some(1), Some(2)][at], Some(at as u32 % 3));
    }
    let on = |need: &GpuNeed, board: &Board| -> Vec<usize> {
        fits(plan(board, &asker(need), BUDGET)).on.into_iter().map(|(at, _)| at).collect()
    };
    assert_eq!(on(&need(2, 40), &board), [1, 4]);
    board.places[1].free = 10;
    assert_eq!(on(&need(2, 40), &board), [2, 5]);
    board.places[5].free = 10;
    assert_eq!(on(&need(2, 40), &board), [0, 3], "no island has two: one memory node");
    let close = GpuNeed { same_island: true, ..need(3, 40) };
    let Verdict::Never { why, short_by, .. } = plan(&board, &asker(&close), BUDGET) else { panic!() };
    assert_eq!((&*why, short_by), ("wants 3 devices that reach each other directly, at most 2 do", 0));
}

#[test]
fn the_cheapest_leave_and_one_on_two_devices_is_paid_for_once() {
    let both = resident(1, &[(0, 20), (1, 20)], may(10));
    let residents = vec![both, resident(2, &[(0, 20)], may(7)), resident(3, &[(1, 20)], may(7))];
    let board = board(&[(40, 0), (40, 0)], residents);
    let leave = |need: &GpuNeed| -> Vec<u64> {
        fits(plan(&board, &asker(need), BUDGET)).victims.iter().map(|v| v.lease.0).collect()
    };
    assert_eq!(leave(&need(2, 20)), [1], "10 for both instead of 7 twice");
    assert_eq!(leave(&need(1, 20)), [2], "7 for one");
    assert_eq!(leave(&need(1, 40)), [1, 2]);
}

#[test]
fn one_who_could_sleep_sleeps_where_that_is_enough() {
    let asleep = |value, park| Leave::May { value, downsize: None, park: Some(park), est_ms: 0, reload_ms: 0 };
    let residents = vec![resident(1, &[(0, 20)], asleep(5, 2)), resident(2, &[(0, 20)], asleep(5, 2))];
    let board = board(&[(40, 0)], residents);
    let actions = |bytes| -> Vec<(u64, MakeRoom)> {
        let placement = fits(plan(&board, &asker(&need(1, bytes)), BUDGET));
        placement.victims.iter().map(|v| (v.lease.0, v.how)).collect()
    };
    assert_eq!(actions(18), [(1, MakeRoom::Park)]);
    assert_eq!(actions(20), [(1, MakeRoom::Stop)]);
    assert_eq!(actions(37), [(1, MakeRoom::Park), (2, MakeRoom::Stop)]);
    let alone = GpuNeed { exclusive: true, ..need(1, 10) };
    let placement = fits(plan(&board, &asker(&alone), BUDGET));
    assert!(placement.victims.iter().all(|v| v.how == MakeRoom::Stop), "{placement:?}");
    assert_eq!(placement.on, [(0, 40)], "alone: all of it");
}

#[test]
fn nobody_leaves_for_what_cannot_be() {
    let board = board(&[(40 << 30, 0), (24 << 30, 0)], vec![resident(1, &[(0, 30 << 30)], may(0))]);
    let Verdict::Never { largest, short_by, why } = plan(&board, &asker(&need(1, 41 << 30)), BUDGET) else { panic!() };
    assert_eq!((largest, short_by), (40 << 30, 1 << 30));
    assert_eq!(why, "wants 41.0 GiB, the largest device that can be used has 40.0 GiB");
    let Verdict::Never { short_by, why, .. } = plan(&board, &asker(&need(2, 30 << 30)), BUDGET) else { panic!() };
    assert_eq!(short_by, 6 << 30);
    assert_eq!(why, "wants 30.0 GiB on each of 2 devices, the next device that can be used has 24.0 GiB");
    let Verdict::Never { why, .. } = plan(&board, &asker(&need(1, (40 << 30) + (5 << 20))), BUDGET) else { panic!() };
    assert_eq!(why, "wants 40965 MiB, the largest device that can be used has 40960 MiB");
    let Verdict::Never { why, .. } = plan(&board, &asker(&need(3, 1)), BUDGET) else { panic!() };
    assert_eq!(why, "wants 3 devices, there are 2");
    let mut hot = board;
    hot.places[0].bar = Some(Bar::Tainted("Xid 79".into()));
    let Verdict::Never { why, largest, .. } = plan(&hot, &asker(&need(1, 30 << 30)), BUDGET) else { panic!() };
    assert_eq!(largest, 24 << 30);
    assert!(why.ends_with("has 24.0 GiB; GPU-00 is not to be used: Xid 79"), "{why}");
}

#[test]
fn who_goes_already_is_waited_for_unless_that_takes_long() {
    let going = |est_ms| {
        let residents =
            vec![resident(1, &[(0, 40)], Leave::Going { est_ms, keeps: 0 }), resident(2, &[(1, 40)], may(5))];
        board(&[(40, 0), (40, 0)], residents)
    };
    let waits = Verdict::Waits { on: vec![0], short_by: 40, behind: vec![LeaseId(1)] };
    assert_eq!(plan(&going(2_000), &asker(&need(1, 40)), BUDGET), waits);
    let placement = fits(plan(&going(60_000), &asker(&need(1, 40)), BUDGET));
    assert_eq!((placement.victims[0].lease, placement.cost), (LeaseId(2), 5));
}

#[test]
fn what_is_promised_beyond_the_brim_must_come_back_first() {
    // 28 go already and are promised to lease 3: sending lease 1 away gives nobody anything yet.
    let no = Leave::No("it is promised".into());
    let residents = vec![
        resident(1, &[(0, 20)], may(1)),
        resident(2, &[(0, 28)], Leave::Going { est_ms: 1_000, keeps: 0 }),
        resident(3, &[(0, 28)], no),
    ];
    let board = board(&[(48, 0)], residents);
    assert_eq!((board.places[0].free, board.places[0].over), (0, 28));
    let verdict = plan(&board, &asker(&need(1, 10)), BUDGET);
    assert_eq!(verdict, Verdict::Waits { on: vec![0], short_by: 38, behind: vec![LeaseId(1), LeaseId(2)] });
}

#[test]
fn it_waits_where_least_stands_in_the_way() {
    let no = || Leave::No("pinned".into());
    let residents = vec![
        resident(1, &[(0, 20)], no()),
        resident(2, &[(0, 20)], no()),
        resident(3, &[(1, 39)], no()),
        resident(4, &[(2, 40)], no()),
    ];
    let mut board = board(&[(40, 0), (40, 0), (40, 0)], residents);
    board.places[1].bar = Some(Bar::Kept(LeaseId(7)));
    let verdict = plan(&board, &asker(&need(1, 30)), BUDGET);
    assert_eq!(verdict, Verdict::Waits { on: vec![2], short_by: 30, behind: vec![LeaseId(4)] });
    let all = need(1, 40);
    let own = Asker { lease: Some(LeaseId(4)), ..asker(&all) };
    assert_eq!(fits(plan(&board, &own, BUDGET)).on, [(2, 40)], "what it has itself is free for it");
}

#[test]
fn no_devices_wanted_is_a_need_that_is_always_met() {
    let placement = fits(plan(&Board::default(), &asker(&need(0, 5)), BUDGET));
    assert_eq!((placement.on.len(), placement.victims.len()), (0, 0));
    let Verdict::Never { why, .. } = plan(&Board::default(), &asker(&need(1, 5)), BUDGET) else { panic!() };
    assert_eq!(why, "wants 1 device, this machine has none");
}
