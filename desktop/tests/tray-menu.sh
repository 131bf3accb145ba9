#!/usr/bin/env bash
# Takes the picture of the tray menu: the real app in the panel of Xfce, its menu open, after joining a real pool.
#   desktop/tests/tray-menu.sh FOLDER-OF-THE-PROGRAMS PICTURE.png
# Needs the packages xvfb, dbus, xfce4-panel, xfconf, xdotool, imagemagick.
set -euo pipefail

if [ "${3:-}" != inside ]; then
  for program in Xvfb dbus-run-session xfce4-panel xdotool import; do
    command -v "$program" >/dev/null || { echo "tray-menu.sh: $program is missing" >&2; exit 1; }
  done
  home=$(mktemp -d)
  trap 'rm -rf "$home"' EXIT
  Xvfb -displayfd 3 -screen 0 420x200x24 -noreset -wr 3>"$home/display" 2>/dev/null &
  display=$!
  trap 'kill "$display"; rm -rf "$home"' EXIT
  until [ -s "$home/display" ]; do sleep 0.1; done
  HOME=$home XDG_CONFIG_HOME=$home/.config XDG_RUNTIME_DIR=$home NO_AT_BRIDGE=1 DISPLAY=:$(cat "$home/display") \
    dbus-run-session -- "$0" "$(realpath "$1")" "$(realpath -m "$2")" inside 2>/dev/null
  exit
fi

programs=$1 picture=$2
settings=$HOME/.config/xfce4/xfconf/xfce-perchannel-xml
mkdir -p "$settings"
cat >"$settings/xfce4-panel.xml" <<'XML'
<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=8;x=210;y=185"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="length" type="uint" value="100"/>
      <property name="size" type="uint" value="30"/>
      <property name="plugin-ids" type="array">
        <value type="int" value="1"/>
        <value type="int" value="2"/>
      </property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="separator">
      <property name="expand" type="bool" value="true"/>
      <property name="style" type="uint" value="0"/>
    </property>
    <property name="plugin-2" type="string" value="systray"/>
  </property>
</channel>
XML

"$programs/lull-coordinator" --listen 127.0.0.1:0 --data-dir "$HOME/pool" --ready-file "$HOME/pool-ready" &
coordinator=$!
until [ -s "$HOME/pool-ready" ]; do sleep 0.1; done
code=$("$programs/lull-coordinator" --data-dir "$HOME/pool" join-code)
"$programs/lull-worker" --data-dir "$HOME/pc" --join "$code" --ready-file "$HOME/pc-ready" &
worker=$!
until [ -s "$HOME/pc-ready" ]; do sleep 0.1; done
kill "$worker"
wait "$worker" || true

xfce4-panel --disable-wm-check &
panel=$!
until xdotool search --onlyvisible --class xfce4-panel >/dev/null; do sleep 0.2; done
"$programs/lull-desktop" --hidden --data-dir "$HOME/pc" &
app=$!
sleep 4
xdotool mousemove 404 185 click 1
sleep 2
import -window root "$picture"
kill "$app" "$panel" "$coordinator"
