//! Promise 3 where the cloud refuses: nothing is taken for delivered, operators see what it is and what helps, and once it
//! is cured everything goes on by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::device::Device;
use weir_tests::process;
use weir_tests::programs;
use weir_tests::wait::eventually;
use weir_tests::{Plan, SETTLED_WITHIN, World, http};

const FULL: &str = "weir_gateway_uplink_trouble{reason=\"full\"}";

#[test]
fn a_full_log_is_told_by_status_metric_and_doctor_and_loses_nothing() -> Result<()> {
    let narrow = |config: &mut toml::Table| {
        config["stream"].as_table_mut().expect("[stream]").insert("max_bytes".into(), 60_000.into());
    };
    let mut world = World::planned(Plan { cloud: Some(Box::new(narrow)), ..Plan::default() })?;
    let mut device = Device::new("crowded")?;
    let mut client = device.connect(world.gateway().mqtt())?;
    for _ in 0..100 {
        // Numbers that do not compress.
        let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(1_500).collect();
        device.emit_text(text);
        device.emit(&mut client, 1)?;
    }
    let admin = world.gateway().admin_address()?;
    let metrics = || Ok::<_, anyhow::Error>(http::get_any(&format!("http://{admin}/metrics"))?.1);
    eventually(SETTLED_WITHIN, "the metric to tell of it", || {
        Ok(metrics()?.contains(&format!("{FULL} 1")).then_some(()))
    })?;
    let config = world.gateway().config_file();
    let arguments = ["status", "--config", config.to_str().expect("UTF-8")];
    let status = process::output(&programs::ours("weir-gateway")?, &arguments, Duration::from_secs(30))?;
    let status = status.success("weir-gateway status")?;
    ensure!(
        status.contains("maximum bytes exceeded") && status.contains("raise the stream's max_bytes"),
        "{status}"
    );
    let doctor =
        world.cloud.weir_any(&["doctor", "--gateway", &format!("http://{admin}")], SETTLED_WITHIN)?;
    ensure!(doctor.out.contains("raise the stream's max_bytes"), "{doctor:?}");
    ensure!(world.cloud.event_count("crowded")? < 100);
    world.nats.change_stream(|stream| stream.max_bytes = -1)?;
    world.verify_devices(&[&device])?;
    ensure!(world.verify_log()? >= 100);
    eventually(SETTLED_WITHIN, "the metric to tell that it is over", || {
        Ok(metrics()?.contains(&format!("{FULL} 0")).then_some(()))
    })?;
    world.end()
}
