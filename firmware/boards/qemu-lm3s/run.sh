#!/bin/sh
# Runs an image on the emulated board, its log on the terminal: what `cargo run --release` does here. Ctrl-A X ends it.
#
# The board's EEPROM is the file $EEPROM (target/eeprom below firmware/, if that is not set), of which weir-provision
# writes the beginning. QEMU's user network has this machine's loopback under 10.0.2.2.
set -eu
image=$1
eeprom=${EEPROM:-$(dirname "$0")/../../target/eeprom}
# Erased memory; QEMU wants a file of the right length.
[ -f "$eeprom" ] || head -c 32768 /dev/zero | tr '\0' '\377' >"$eeprom"
exec qemu-system-arm -M lm3s6965evb -nographic -kernel "$image" \
    -netdev user,id=cable -net nic,model=stellaris,netdev=cable \
    -device tmp105,bus=i2c,address=0x48,id=thermometer \
    -drive if=none,id=eeprom,format=raw,file="$eeprom" \
    -device at24c-eeprom,bus=i2c,address=0x50,rom-size=32768,drive=eeprom
