//! Promise 1 for everybody: clients we did not write get their PUBACK, and what they sent is stored.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::device::Device;
use weir_tests::{World, process, programs};

const WITHIN: Duration = Duration::from_secs(30);

#[test]
fn mosquitto_pub_gets_its_puback() -> Result<()> {
    let program = Path::new("mosquitto_pub");
    if process::output(program, &["--help"], WITHIN).is_err() {
        eprintln!("skipped: no mosquitto_pub here; make setup says how to get it");
        return Ok(());
    }
    let mut world = World::start()?;
    let port = world.gateway().mqtt().port().to_string();
    let mut device = Device::new("mosquito")?;
    for version in ["mqttv311", "mqttv5"] {
        let file = world.folder().join(version);
        std::fs::write(&file, device.uplink(3)?)?;
        let file = file.to_string_lossy().into_owned();
        let topic = device.topic();
        let arguments = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-V",
            version,
            "-i",
            "mosquito",
            "-q",
            "1",
            "-t",
            &topic,
            "-f",
            &file,
            "-d",
        ];
        let finished = process::output(program, &arguments, WITHIN)?;
        let said = format!("{}{}", finished.out, finished.err);
        finished.success("mosquitto_pub")?;
        ensure!(said.contains("PUBACK"), "{said}");
    }
    world.verify_devices(&[&device])?;
    world.end()
}

#[test]
fn paho_gets_its_puback() -> Result<()> {
    /// Publishes the file of argv[4] and fails unless `on_publish` (which paho calls on PUBACK) tells success.
    const SCRIPT: &str = r#"
import sys
import paho.mqtt.client as mqtt

host, port, version, file, client_id, topic = sys.argv[1:]
reasons = []
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id,
                     protocol=mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311)
client.on_publish = lambda client, data, mid, reason, properties: reasons.append(reason)
client.connect(host, int(port))
client.loop_start()
client.publish(topic, open(file, "rb").read(), qos=1).wait_for_publish(20)
client.disconnect()
client.loop_stop()
sys.exit(0 if len(reasons) == 1 and not reasons[0].is_failure else f"PUBACKs: {reasons}")
"#;
    let packages = programs::python_packages();
    if !packages.join("paho").is_dir() {
        eprintln!("skipped: no paho-mqtt here; make setup says how to get it");
        return Ok(());
    }
    let mut world = World::start()?;
    let port = world.gateway().mqtt().port().to_string();
    let mut device = Device::new("paho")?;
    let script = world.folder().join("publish.py");
    std::fs::write(&script, format!("import sys\nsys.path.insert(0, {:?})\n{SCRIPT}", packages))?;
    let script = script.to_string_lossy().into_owned();
    for version in ["311", "5"] {
        let file = world.folder().join(format!("paho-{version}"));
        std::fs::write(&file, device.uplink(3)?)?;
        let file = file.to_string_lossy().into_owned();
        let arguments = [script.as_str(), "127.0.0.1", &port, version, &file, "paho", &device.topic()];
        process::output(Path::new("python3"), &arguments, WITHIN)?.success("paho")?;
    }
    world.verify_devices(&[&device])?;
    world.end()
}
