#!/bin/sh
# Renders the SVG files of this folder to the PNG and ICO files that are built in.
# Needs rsvg-convert (librsvg2-bin) and convert (imagemagick).
set -eu
cd "$(dirname "$0")"

for state in ready working waiting not-connected not-joined; do
    rsvg-convert --width 64 --height 64 "tray-$state.svg" --output "tray-$state.png"
done

rsvg-convert --width 32 --height 32 lull.svg --output 32x32.png
rsvg-convert --width 128 --height 128 lull.svg --output 128x128.png
rsvg-convert --width 256 --height 256 lull.svg --output 128x128@2x.png
rsvg-convert --width 512 --height 512 lull.svg --output icon.png

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for size in 16 24 32 48 64 256; do
    rsvg-convert --width "$size" --height "$size" lull.svg --output "$work/$size.png"
done
convert "$work/16.png" "$work/24.png" "$work/32.png" "$work/48.png" "$work/64.png" "$work/256.png" icon.ico
