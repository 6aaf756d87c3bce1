//! The planner on boards by chance and on small ones: what must hold is said here, without the search.

use wharf_model::{DeviceId, GpuNeed, LeaseId, UnitName};

use super::{
    super::board::{Place, Resident},
    *,
};

mod chance;
mod examples;

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
    Leave::May { value, downsize: None, park: None, est_ms: 1_000, reload_ms: 1_000 }
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
fn room(board: &Board, asker: &Asker, at: usize, left: &[(LeaseId, MakeRoom)]) -> Option<u64> {
    let place = &board.places[at];
    let mut room = i128::from(place.free) - i128::from(place.over);
    for resident in &board.residents {
        let Some((_, bytes)) = resident.shares.iter().find(|(place, _)| *place == at) else { continue };
        let keeps = match (left.iter().find(|(lease, _)| *lease == resident.lease), &resident.leave) {
            (Some((_, MakeRoom::Stop)), _) => continue_with(&mut room, *bytes),
            (Some((_, MakeRoom::Park)), Leave::May { park: Some(keeps), .. })
            | (Some((_, MakeRoom::Downsize)), Leave::May { downsize: Some(keeps), .. }) => {
                room += i128::from(bytes - keeps.min(bytes));
                true
            }
            (Some((_, how)), _) => panic!("{} cannot {}", resident.lease, how.word()),
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

fn goes_in(board: &Board, asker: &Asker, on: &[usize], left: &[(LeaseId, MakeRoom)]) -> bool {
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
            Leave::Going { est_ms, .. } => est_ms <= place::PATIENCE_MS,
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
            let left: Vec<_> = out.iter().map(|n| (movers[*n].lease, MakeRoom::Stop)).collect();
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
    let left: Vec<_> = placement.victims.iter().map(|v| (v.lease, v.how)).collect();
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
        let Leave::May { value, downsize, park, .. } = resident.leave else {
            panic!("{} may not be sent away", victim.lease)
        };
        cost += value;
        let mut without = left.clone();
        without.remove(n);
        assert!(!goes_in(board, asker, &on, &without), "{} leaves for nothing: {placement:?}", victim.lease);
        for (milder, keeps) in [(MakeRoom::Downsize, downsize), (MakeRoom::Park, park)] {
            if milder < victim.how && keeps.is_some() && !shun(asker, resident) {
                let mut instead = left.clone();
                instead[n].1 = milder;
                assert!(
                    !goes_in(board, asker, &on, &instead),
                    "{} could {}: {placement:?}",
                    victim.lease,
                    milder.word()
                );
            }
        }
    }
    assert_eq!(cost, placement.cost);
    for (at, bytes) in &placement.on {
        let all = || room(board, asker, *at, &left).unwrap();
        assert_eq!(*bytes, if asker.need.is_alone() { all() } else { asker.need.vram_bytes.unwrap() });
    }
}
