//! The planner against a brute force that tries everything, and what must hold on any board.

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn leaves() -> impl Strategy<Value = Leave> {
    prop_oneof![
        5 => (0..6u64, option::of(1..6u64), option::of(0..4u64)).prop_map(|(value, downsize, park)| Leave::May {
            value,
            downsize: downsize.map(|n| n * STEP),
            park: park.map(|n| n * STEP),
            est_ms: 1_000,
            reload_ms: 1_000
        }),
        1 => prop_oneof![Just(1_000), Just(600_000)].prop_map(|est_ms| Leave::Going { est_ms, keeps: 0 }),
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
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

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
                let left: Vec<_> = behind.iter().map(|lease| (*lease, MakeRoom::Stop)).collect();
                prop_assert!(goes_in(&board, &asker, &on, &left));
            }
            (Verdict::Waits { on, behind, .. }, None) => {
                prop_assert_eq!(on.len(), need.devices as usize);
                prop_assert!(on.iter().all(|at| usable(&&board.places[*at])));
                let left: Vec<_> = behind.iter().map(|lease| (*lease, MakeRoom::Stop)).collect();
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
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

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

/// Boards where nearly everybody is on several devices, and a need for several.
fn tangles() -> impl Strategy<Value = (Board, GpuNeed)> {
    let shares = vec((0..5usize, 2..7u64), 2..=4).prop_map(|all| {
        let mut shares: Vec<(usize, u64)> = all.into_iter().map(|(at, n)| (at, n * STEP)).collect();
        shares.sort_unstable();
        shares.dedup_by_key(|(at, _)| *at);
        shares
    });
    let one = (shares, 0..40u64).prop_map(|(shares, value)| resident(0, &shares, may(value)));
    (vec(one, 6..=9), 2..=4u32, 60..100u64).prop_map(|(mut all, devices, percent)| {
        (1u64..).zip(&mut all).for_each(|(n, one)| one.lease = LeaseId(n));
        let held = |at: usize| all.iter().flat_map(|r| &r.shares).filter(|s| s.0 == at).map(|s| s.1).sum::<u64>();
        // Full to the brim, and what is wanted is most of a device.
        let sizes: Vec<(u64, u64)> = (0..5).map(|at| (held(at).max(STEP), 0)).collect();
        let mean = sizes.iter().map(|(size, _)| size).sum::<u64>() / 5;
        (board(&sizes, all), need(devices, mean * percent / 130))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 700, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn holders_of_several_devices_are_weighed_exactly((board, need) in tangles()) {
        let asker = asker(&need);
        let searched = search(&board, &asker, 1_000_000);
        prop_assert!(searched.exact);
        match (searched.verdict, best(&board, &asker)) {
            (Verdict::Fits(found), Some(best)) => {
                check_placement(&board, &asker, &found);
                let on: Vec<usize> = found.on.iter().map(|(at, _)| *at).collect();
                prop_assert_eq!((found.cost, found.victims.len(), on), (best.0, best.1, best.6));
            }
            (Verdict::Never { .. }, None) => {}
            (verdict, best) => prop_assert!(false, "{:?} instead of {:?}", verdict, best),
        }
    }
}
