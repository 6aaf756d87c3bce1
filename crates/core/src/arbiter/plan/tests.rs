//! The planner against a brute force that tries everything, and what must hold on any board.

use proptest::{collection::vec, option, prelude::*};
use wharf_model::{DeviceId, GpuNeed, LeaseId, UnitName};

use super::{super::board::Resident, *};

/// No multiple of a mebibyte: what is rounded on the way shows.
const STEP: u64 = 700_001;

fn unit(n: u8) -> UnitName {
    format!("unit{n}").parse().unwrap()
}

/// A board whose sums are right: what is free is what the residents and the others leave.
fn board(sizes: &[(u64, u64)], residents: Vec<Resident>) -> Board {
    let places = sizes.iter().enumerate().map(|(at, &(capacity, foreign))| {
        let shares = residents.iter().flat_map(|r| &r.shares).filter(|(place, _)| *place == at);
        let taken = foreign + shares.map(|(_, bytes)| bytes).sum::<u64>();
        Place {
            id: DeviceId::from(&*format!("GPU-{at:02}")),
            capacity,
            free: capacity.saturating_sub(taken),
            over: taken.saturating_sub(capacity),
            foreign,
            bar: None,
            island: None,
            numa: None,
        }
    });
    Board { places: places.collect(), residents }
}

fn resident(lease: u64, shares: &[(usize, u64)], leave: Leave) -> Resident {
    Resident {
        lease: LeaseId(lease),
        unit: Some(unit(9)),
        shares: shares.to_vec(),
        alone: false,
        never_with: vec![],
        only_with: vec![],
        leave,
    }
}

fn may(value: u64) -> Leave {
    Leave::May { value, park: None, est_ms: 1_000, reload_ms: 1_000 }
}

fn need(devices: u32, vram_bytes: u64) -> GpuNeed {
    GpuNeed { devices, vram_bytes: Some(vram_bytes), ..GpuNeed::default() }
}

fn asker(need: &GpuNeed) -> Asker<'_> {
    Asker { need, unit: None, lease: None }
}

fn fits(verdict: Verdict) -> Placement {
    match verdict {
        Verdict::Fits(placement) => placement,
        Verdict::Waits { .. } | Verdict::Never { .. } => panic!("{verdict:?}"),
    }
}

// What must hold, said without the search.

/// What a request would find free on a place once these have left or sleep; none: one who stays does not share it.
fn room(board: &Board, asker: &Asker, at: usize, left: &[(LeaseId, Action)]) -> Option<u64> {
    let place = &board.places[at];
    let mut room = i128::from(place.free) - i128::from(place.over);
    for resident in &board.residents {
        let Some((_, bytes)) = resident.shares.iter().find(|(place, _)| *place == at) else { continue };
        let keeps = match (left.iter().find(|(lease, _)| *lease == resident.lease), &resident.leave) {
            (Some((_, Action::Stop)), _) => continue_with(&mut room, *bytes),
            (Some((_, Action::Park)), Leave::May { park: Some(keeps), .. }) => {
                room += i128::from(bytes - keeps.min(bytes));
                true
            }
            (Some((_, Action::Park)), _) => panic!("{} cannot sleep", resident.lease),
            (None, _) => true,
        };
        if keeps && shun(asker, resident) {
            return None;
        }
    }
    u64::try_from(room).ok().or(Some(0))
}

fn continue_with(room: &mut i128, bytes: u64) -> bool {
    *room += i128::from(bytes);
    false
}

fn shun(asker: &Asker, resident: &Resident) -> bool {
    let (mine, its) = (asker.unit, resident.unit.as_ref());
    let has = |list: &[UnitName], one: Option<&UnitName>| one.is_some_and(|one| list.contains(one));
    asker.need.vram_bytes.is_none()
        || asker.need.exclusive
        || resident.alone
        || has(&asker.need.never_with, its)
        || has(&resident.never_with, mine)
        || (!asker.need.only_with.is_empty() && !has(&asker.need.only_with, its))
        || (!resident.only_with.is_empty() && !has(&resident.only_with, mine))
}

fn goes_in(board: &Board, asker: &Asker, on: &[usize], left: &[(LeaseId, Action)]) -> bool {
    on.iter().all(|at| room(board, asker, *at, left).is_some_and(|room| room >= asker.need.vram_bytes.unwrap_or(1)))
}

fn is_usable(place: &Place, need: &GpuNeed) -> bool {
    place.bar.is_none()
        && (need.only.is_empty() || need.only.contains(&place.id))
        && !need.avoid.contains(&place.id)
        && place.capacity >= need.vram_bytes.unwrap_or(1)
}

fn subsets(of: usize) -> impl Iterator<Item = Vec<usize>> {
    (0u32..1 << of).map(move |bits| (0..of).filter(|n| bits & (1 << n) != 0).collect())
}

fn is_island(board: &Board, on: &[usize]) -> bool {
    let first = board.places[on[0]].island;
    on.len() == 1 || (first.is_some() && on.iter().all(|at| board.places[*at].island == first))
}

/// (value, victims, those who go by themselves, devices with strangers, link, left over, devices)
type Best = (u64, usize, usize, usize, u8, u64, Vec<usize>);

fn best(board: &Board, asker: &Asker) -> Option<Best> {
    let usable: Vec<usize> = (0..board.places.len()).filter(|at| is_usable(&board.places[*at], asker.need)).collect();
    let movers: Vec<&Resident> = board
        .residents
        .iter()
        .filter(|r| match r.leave {
            Leave::May { .. } => true,
            Leave::Going { est_ms } => est_ms <= place::PATIENCE_MS,
            Leave::No(_) => false,
        })
        .collect();
    let mut best: Option<Best> = None;
    for on in subsets(usable.len()).filter(|set| set.len() == asker.need.devices as usize) {
        let on: Vec<usize> = on.into_iter().map(|n| usable[n]).collect();
        if asker.need.same_island && !is_island(board, &on) {
            continue;
        }
        for out in subsets(movers.len()) {
            let left: Vec<_> = out.iter().map(|n| (movers[*n].lease, Action::Stop)).collect();
            if !goes_in(board, asker, &on, &left) {
                continue;
            }
            let values = out.iter().map(|n| match movers[*n].leave {
                Leave::May { value, .. } => (value, 1, 0),
                Leave::Going { .. } | Leave::No(_) => (0, 0, 1),
            });
            let sum = values.fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
            let place = |at: &usize| &board.places[*at];
            let numa = place(&on[0]).numa;
            let link = match () {
                () if is_island(board, &on) => 0,
                () if numa.is_some() && on.iter().all(|at| place(at).numa == numa) => 1,
                () => 2,
            };
            let wants = asker.need.vram_bytes.unwrap_or(1);
            let over = |at: &usize| match asker.need.vram_bytes {
                None => 1_000_000_000_000 - place(at).capacity,
                Some(_) if asker.need.exclusive => place(at).capacity - wants,
                Some(_) => place(at).free.saturating_sub(wants + place(at).over),
            };
            let strangers = on.iter().filter(|at| place(at).foreign > 0).count();
            let found = (sum.0, sum.1, sum.2, strangers, link, on.iter().map(over).sum(), on.clone());
            if best.as_ref().is_none_or(|best| found < *best) {
                best = Some(found);
            }
        }
    }
    best
}

/// Whatever the budget: it goes in, everybody who leaves is needed and may, and nobody stops who could sleep.
fn check_placement(board: &Board, asker: &Asker, placement: &Placement) {
    let on: Vec<usize> = placement.on.iter().map(|(at, _)| *at).collect();
    let left: Vec<_> = placement.victims.iter().map(|v| (v.lease, v.action)).collect();
    assert_eq!(on.len(), asker.need.devices as usize);
    assert!(on.is_sorted_by(|a, b| a < b), "{on:?}");
    assert!(goes_in(board, asker, &on, &left), "over-committed: {placement:?}");
    for at in &on {
        assert!(is_usable(&board.places[*at], asker.need), "{at} is not for this request");
    }
    if asker.need.same_island {
        assert!(is_island(board, &on));
    }
    let mut cost = 0;
    for (n, victim) in placement.victims.iter().enumerate() {
        let resident = board.residents.iter().find(|r| r.lease == victim.lease).unwrap();
        let Leave::May { value, park, .. } = resident.leave else { panic!("{} may not be sent away", victim.lease) };
        cost += value;
        let mut without = left.clone();
        without.remove(n);
        assert!(!goes_in(board, asker, &on, &without), "{} leaves for nothing: {placement:?}", victim.lease);
        if victim.action == Action::Stop && park.is_some() && !shun(asker, resident) {
            let mut asleep = left.clone();
            asleep[n].1 = Action::Park;
            assert!(!goes_in(board, asker, &on, &asleep), "{} could sleep: {placement:?}", victim.lease);
        }
    }
    assert_eq!(cost, placement.cost);
    for (at, bytes) in &placement.on {
        let all = || room(board, asker, *at, &left).unwrap();
        assert_eq!(*bytes, if asker.need.is_alone() { all() } else { asker.need.vram_bytes.unwrap() });
    }
}

// Boards by chance.

fn leaves() -> impl Strategy<Value = Leave> {
    prop_oneof![
        5 => (0..6u64, option::of(0..4u64)).prop_map(|(value, park)| Leave::May {
            value,
            park: park.map(|n| n * STEP),
            est_ms: 1_000,
            reload_ms: 1_000
        }),
        1 => prop_oneof![Just(1_000), Just(600_000)].prop_map(|est_ms| Leave::Going { est_ms }),
        1 => Just(Leave::No("pinned".into())),
    ]
}

fn some_units() -> impl Strategy<Value = Vec<UnitName>> {
    prop_oneof![6 => Just(vec![]), 1 => vec((0..3u8).prop_map(unit), 1..3)]
}

fn residents(places: usize, most: usize, widest: usize) -> impl Strategy<Value = Vec<Resident>> {
    let shares = vec((0..places, 1..9u64), 1..=widest).prop_map(|all| {
        let mut shares: Vec<(usize, u64)> = all.into_iter().map(|(at, n)| (at, n * STEP)).collect();
        shares.sort_unstable();
        shares.dedup_by_key(|(at, _)| *at);
        shares
    });
    let one = (shares, option::of((0..3u8).prop_map(unit)), prop::bool::weighted(0.08), some_units(), some_units());
    let one = (one, leaves()).prop_map(|((shares, unit, alone, never_with, only_with), leave)| Resident {
        lease: LeaseId(0),
        unit,
        shares,
        alone,
        never_with,
        only_with,
        leave,
    });
    vec(one, 0..=most).prop_map(|mut all| {
        (1u64..).zip(&mut all).for_each(|(n, one)| one.lease = LeaseId(n));
        all
    })
}

fn boards(places: std::ops::RangeInclusive<usize>, most: usize, widest: usize) -> impl Strategy<Value = Board> {
    let bars = || {
        prop_oneof![
            10 => Just(None),
            1 => Just(Some(Bar::Tainted("it is hot".into()))),
            1 => Just(Some(Bar::WarmingUp(LeaseId(99)))),
            1 => Just(Some(Bar::Stale)),
        ]
    };
    let near = || (option::of(0..2u32), option::of(0..2u32));
    places.prop_flat_map(move |count| {
        let foreign = prop_oneof![3 => Just(0u64), 1 => 1..5u64];
        let sizes = vec((4..22u64, foreign), count);
        (sizes, residents(count, most, widest), vec((bars(), near()), count)).prop_map(|(sizes, residents, rest)| {
            let sizes: Vec<(u64, u64)> = sizes.into_iter().map(|(size, other)| (size * STEP, other * STEP)).collect();
            let mut board = board(&sizes, residents);
            for (place, (bar, (island, numa))) in board.places.iter_mut().zip(rest) {
                (place.bar, place.island, place.numa) = (bar, island, numa);
            }
            board
        })
    })
}

fn needs(most: u32) -> impl Strategy<Value = (GpuNeed, Option<UnitName>)> {
    let ids = || vec((0..4usize).prop_map(|n| DeviceId::from(&*format!("GPU-{n:02}"))), 0..3);
    let size = prop_oneof![9 => (1..14u64).prop_map(Some), 1 => Just(None)];
    let rare = || prop::bool::weighted(0.15);
    let lists =
        (rare(), rare(), prop_oneof![5 => Just(vec![]), 1 => ids()], prop_oneof![5 => Just(vec![]), 1 => ids()]);
    (1..=most, size, lists, some_units(), some_units(), option::of((0..3u8).prop_map(unit))).prop_map(
        |(devices, size, (exclusive, same_island, only, avoid), never_with, only_with, unit)| {
            let vram_bytes = size.map(|n| n * STEP + 1);
            (GpuNeed { devices, vram_bytes, exclusive, same_island, only, avoid, never_with, only_with }, unit)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_finds_what_trying_everything_finds(board in boards(1..=4, 7, 3), (need, unit) in needs(3)) {
        let asker = Asker { need: &need, unit: unit.as_ref(), lease: None };
        let searched = search(&board, &asker, 1_000_000);
        prop_assert!(searched.exact);
        prop_assert_eq!(&searched, &search(&board.clone(), &asker, 1_000_000));
        let usable = |place: &&Place| place.bar.as_ref().is_none_or(Bar::passes)
            && is_usable(&Place { bar: None, ..(*place).clone() }, &need);
        match (searched.verdict, best(&board, &asker)) {
            (Verdict::Fits(found), Some(best)) => {
                check_placement(&board, &asker, &found);
                let on: Vec<usize> = found.on.iter().map(|(at, _)| *at).collect();
                prop_assert_eq!((found.cost, found.victims.len(), 0, on), (best.0, best.1, best.2, best.6));
            }
            (Verdict::Waits { on, behind, .. }, Some(best)) => {
                prop_assert!(best.2 > 0, "it waits, and nobody goes by himself");
                prop_assert_eq!(&on, &best.6);
                let left: Vec<_> = behind.iter().map(|lease| (*lease, Action::Stop)).collect();
                prop_assert!(goes_in(&board, &asker, &on, &left));
            }
            (Verdict::Waits { on, behind, .. }, None) => {
                prop_assert_eq!(on.len(), need.devices as usize);
                prop_assert!(on.iter().all(|at| usable(&&board.places[*at])));
                let left: Vec<_> = behind.iter().map(|lease| (*lease, Action::Stop)).collect();
                let strangers = on.iter().any(|at| board.places[*at].foreign > 0);
                prop_assert!(strangers || goes_in(&board, &asker, &on, &left), "{:?} would not do", behind);
            }
            (Verdict::Never { .. }, None) => {
                let there: Vec<usize> = (0..board.places.len()).filter(|at| usable(&&board.places[*at])).collect();
                let sets = subsets(there.len()).filter(|set| set.len() == need.devices as usize);
                let mut sets = sets.map(|set| set.into_iter().map(|n| there[n]).collect::<Vec<_>>());
                prop_assert!(!sets.any(|on| !need.same_island || is_island(&board, &on)), "an empty machine would do");
            }
            (verdict, best) => prop_assert!(false, "{:?} instead of {:?}", verdict, best),
        }
    }

    #[test]
    fn more_free_memory_never_makes_it_impossible_or_dearer(
        board in boards(1..=4, 7, 3), (need, unit) in needs(3), more in 1..9u64,
    ) {
        let asker = Asker { need: &need, unit: unit.as_ref(), lease: None };
        let mut roomier = board.clone();
        for place in &mut roomier.places {
            let (free, more) = (i128::from(place.free) - i128::from(place.over), i128::from(more * STEP));
            place.capacity += more as u64;
            place.free = (free + more).max(0) as u64;
            place.over = (-(free + more)).max(0) as u64;
        }
        match (plan(&board, &asker, BUDGET), plan(&roomier, &asker, BUDGET)) {
            (Verdict::Fits(before), Verdict::Fits(after)) => prop_assert!(after.cost <= before.cost),
            // Somebody who goes already will do by now, and costs nothing.
            (Verdict::Fits(before), Verdict::Waits { .. }) => prop_assert!(!before.victims.is_empty()),
            (Verdict::Fits(_) | Verdict::Waits { .. }, Verdict::Never { .. }) => prop_assert!(false, "it became impossible"),
            (Verdict::Waits { .. } | Verdict::Never { .. }, _) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_budget_nobody_leaves_for_nothing_and_nothing_is_over_committed(
        board in boards(1..=20, 60, 8), (need, unit) in needs(8), budget in prop_oneof![Just(0u32), 1..400u32],
    ) {
        let asker = Asker { need: &need, unit: unit.as_ref(), lease: None };
        let poor = search(&board, &asker, budget);
        prop_assert!(poor.nodes <= budget);
        prop_assert_eq!(&poor, &search(&board, &asker, budget));
        let rich = search(&board, &asker, 20_000);
        match (poor.verdict, rich.verdict) {
            (Verdict::Fits(poor), Verdict::Fits(rich)) => {
                check_placement(&board, &asker, &poor);
                check_placement(&board, &asker, &rich);
                prop_assert!(rich.cost <= poor.cost, "more budget made it dearer: {} {}", rich.cost, poor.cost);
            }
            (Verdict::Never { .. }, Verdict::Never { .. }) | (Verdict::Waits { .. }, Verdict::Waits { .. }) => {}
            // Who cannot look for long may wait for one who goes, or send another away in his stead: no worse.
            (Verdict::Fits(one), Verdict::Waits { .. }) | (Verdict::Waits { .. }, Verdict::Fits(one)) => {
                check_placement(&board, &asker, &one);
            }
            (poor, rich) => prop_assert!(false, "{:?} {:?}", poor, rich),
        }
    }
}

// What a reader would ask.

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
    let asleep = |value, park| Leave::May { value, park: Some(park), est_ms: 0, reload_ms: 0 };
    let residents = vec![resident(1, &[(0, 20)], asleep(5, 2)), resident(2, &[(0, 20)], asleep(5, 2))];
    let board = board(&[(40, 0)], residents);
    let actions = |bytes| -> Vec<(u64, Action)> {
        let placement = fits(plan(&board, &asker(&need(1, bytes)), BUDGET));
        placement.victims.iter().map(|v| (v.lease.0, v.action)).collect()
    };
    assert_eq!(actions(18), [(1, Action::Park)]);
    assert_eq!(actions(20), [(1, Action::Stop)]);
    assert_eq!(actions(37), [(1, Action::Park), (2, Action::Stop)]);
    let alone = GpuNeed { exclusive: true, ..need(1, 10) };
    let placement = fits(plan(&board, &asker(&alone), BUDGET));
    assert!(placement.victims.iter().all(|v| v.action == Action::Stop), "{placement:?}");
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
        let residents = vec![resident(1, &[(0, 40)], Leave::Going { est_ms }), resident(2, &[(1, 40)], may(5))];
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
        resident(2, &[(0, 28)], Leave::Going { est_ms: 1_000 }),
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
