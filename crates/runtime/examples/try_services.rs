//! Installs, starts, asks and stops services of the catalogue with the real hands, and says how long each took.
//!
//! ```text
//! WHARF_HOME=/tmp/try cargo run -p wharf-runtime --example try_services -- redis nats=2.15.0 python-api@vault
//! ```

use std::{
    collections::BTreeMap,
    error::Error,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use wharf_model::{Installed, RunId, UnitName};
use wharf_runtime::{Layout, RealHands, launch::Launcher, ports};
use wharf_services::{Catalogue, Context, Dirs, PortChoice, Service, Wanted};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let layout = Layout::from_env();
    layout.create()?;
    let launcher = Launcher::new(layout.runs(), layout.shim_dir(), "try")?;
    println!("{}, runs are contained by {:?}", layout.home, launcher.tier());
    let hands = RealHands::new(layout.clone(), launcher.clone(), std::env::current_exe()?, |unit, progress| {
        println!("  {unit}: {} {:?}/{:?}", progress.stage, progress.done, progress.total);
    });
    for name in std::env::args().skip(1) {
        let (unit, version) = name.split_once('=').map_or((name.as_str(), None), |(u, v)| (u, Some(v.to_owned())));
        let want = Wanted { version, reset: false, ..Wanted::default() };
        if let Err(e) = try_one(&layout, &launcher, &hands, &unit.parse()?, &want).await {
            println!("{name}: FAILED: {e:#?}");
        }
    }
    Ok(())
}

async fn try_one(
    layout: &Layout,
    launcher: &Launcher,
    hands: &RealHands,
    unit: &UnitName,
    want: &Wanted,
) -> Result<(), Box<dyn Error>> {
    let catalogue = Catalogue::built_in();
    let service: &Arc<dyn Service> = catalogue.get(unit.service()).ok_or("no such service")?;
    layout.create_unit(unit)?;
    let with = Arc::new(serde_json::json!({}));
    let mut numbers = BTreeMap::new();
    for wish in service.ports(unit, &with)? {
        let number = match wish.choice {
            PortChoice::Number(number) => number,
            PortChoice::Auto(_) => ports::free()?,
        };
        ports::check(number).map_err(|holder| holder.failure(unit, &wish.name))?;
        numbers.insert(wish.name, number);
    }
    let dirs = Dirs { data: layout.data(unit), run: layout.unit_run(unit), store: layout.store().to_owned() };
    let context = |run: Option<RunId>, installed: Option<Installed>| {
        let (unit, with, numbers) = (unit.clone(), with.clone(), numbers.clone());
        Context::new(unit, run, with, numbers, installed, dirs.clone(), Arc::default(), Arc::new(hands.clone()))
    };
    let began = Instant::now();
    let installed = service.install(&context(None, None), want).await?;
    let placed = began.elapsed();
    let began = Instant::now();
    service.install(&context(None, None), want).await?;
    println!("{unit}: {} placed in {placed:?}, again in {:?}", installed.version, began.elapsed());

    let run = RunId(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64);
    let cx = context(Some(run), Some(installed));
    for check in service.verify(&cx).await? {
        println!("  {} {}: {}", if check.ok { "ok" } else { "BAD" }, check.check, check.detail);
    }
    let began = Instant::now();
    let pid = service.start(&cx).await?.pid;
    let spawned = began.elapsed();
    let live = hands.live(run).ok_or("not in the registry")?;
    let health = loop {
        let health = service.health(&cx).await?;
        if health.is_ready() || began.elapsed() > Duration::from_secs(30) {
            break health;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let pids = live.pids();
    println!("{unit}: pid {pid}, spawned in {spawned:?}, {health:?} after {:?}", began.elapsed());
    println!("  listens on {:?}; pids {pids:?}", ports::listeners(pids.clone()));
    let began = Instant::now();
    service.stop(&cx).await?;
    let exit = live.exited().await;
    live.emptied().await;
    println!("{unit}: {exit} {:?} after the signal", began.elapsed());
    hands.drop_run(run);
    launcher.forget(unit, run).await;
    if !health.is_ready() {
        println!("{}", std::fs::read_to_string(layout.log(unit, run))?);
    }
    Ok(())
}
