#!/usr/bin/perl
# Renders frames of a small ray-traced scene as PNG files: perl render.pl SCENE FOLDER FRAMES
use strict;
use warnings;

my ($scene, $folder, $frames) = @ARGV;
die "usage: render.pl SCENE FOLDER FRAMES\n" unless defined $frames && $frames =~ /^[1-9]\d*$/;
$| = 1;

my ($width, $height, @spheres, @light) = (0, 0);
open my $in, '<', $scene or die "could not read $scene: $!\n";
while (<$in>) {
    next if /^\s*(#|$)/;
    my ($word, @values) = split;
    if ($word eq 'size') { ($width, $height) = @values }
    elsif ($word eq 'sphere') { push @spheres, [@values] }
    elsif ($word eq 'light') { @light = @values }
    else { die "$scene line $.: unknown word '$word'\n" }
}
mkdir $folder or die "could not make $folder: $!\n" unless -d $folder;

my @crc_table = map { my $c = $_; $c = $c & 1 ? 0xEDB88320 ^ ($c >> 1) : $c >> 1 for 1 .. 8; $c } 0 .. 255;

for my $frame (1 .. $frames) {
    my $angle = 2 * 3.14159265 * ($frame - 1) / $frames;
    my @moved = map { [$_->[0] * cos($angle) + ($_->[2] - 4) * sin($angle), $_->[1],
        4 - $_->[0] * sin($angle) + ($_->[2] - 4) * cos($angle), @$_[3 .. 6]] } @spheres;
    my $rows = '';
    for my $y (0 .. $height - 1) {
        $rows .= "\0";
        for my $x (0 .. $width - 1) {
            my @ray = normal(($x - $width / 2) / $height, ($height / 2 - $y) / $height, 1);
            $rows .= pack 'C3', map { $_ > 1 ? 255 : int 255 * $_ } colour(\@moved, [0, 0, 0], \@ray, 0);
        }
    }
    my $name = sprintf '%s/frame-%02d.png', $folder, $frame;
    open my $out, '>:raw', $name or die "could not write $name: $!\n";
    print $out "\x89PNG\r\n\x1a\n", chunk('IHDR', pack('NNC5', $width, $height, 8, 2, 0, 0, 0)),
        chunk('IDAT', stored($rows)), chunk('IEND', '');
    close $out or die "could not write $name: $!\n";
    print "frame $frame of $frames: $name\n";
}

sub colour {
    my ($spheres, $from, $ray, $depth) = @_;
    my ($nearest, $hit) = (1e9);
    for my $s (@$spheres) {
        my $t = meet($s, $from, $ray);
        ($nearest, $hit) = ($t, $s) if defined $t && $t < $nearest;
    }
    if ($ray->[1] < -1e-6 && (-1 - $from->[1]) / $ray->[1] < $nearest) {
        my $t = (-1 - $from->[1]) / $ray->[1];
        my @at = map { $from->[$_] + $t * $ray->[$_] } 0 .. 2;
        my $tile = (int(1000 + $at[0]) + int(1000 + $at[2])) % 2 ? 0.82 : 0.62;
        my $light = shaded($spheres, \@at) ? 0.45 : 1;
        my $fade = 1 / (1 + 0.004 * $t * $t);
        return map { $tile * $light * $fade + $_ * (1 - $fade) } 0.75, 0.82, 0.92;
    }
    return map { $_ - 0.35 * $ray->[1] } 0.75, 0.82, 0.97 unless $hit;
    my @at = map { $from->[$_] + $nearest * $ray->[$_] } 0 .. 2;
    my @n = map { ($at[$_] - $hit->[$_]) / $hit->[3] } 0 .. 2;
    my @to = normal(map { $light[$_] - $at[$_] } 0 .. 2);
    my $bright = dot(\@n, \@to);
    $bright = 0 if $bright < 0 || shaded($spheres, \@at);
    my $d = 2 * dot($ray, \@n);
    my @mirror = map { $ray->[$_] - $d * $n[$_] } 0 .. 2;
    my @seen = $depth < 2 ? colour($spheres, \@at, \@mirror, $depth + 1) : (0.75, 0.82, 0.92);
    my $shine = dot(\@mirror, \@to);
    $shine = $shine > 0 && $bright > 0 ? 0.6 * $shine**40 : 0;
    return map { $hit->[4 + $_] * (0.18 + 0.65 * $bright) + 0.22 * $seen[$_] + $shine } 0 .. 2;
}

sub meet {
    my ($s, $from, $ray) = @_;
    my @o = map { $from->[$_] - $s->[$_] } 0 .. 2;
    my $b = dot(\@o, $ray);
    my $root = $b * $b - dot(\@o, \@o) + $s->[3]**2;
    return if $root < 0;
    my $t = -$b - sqrt $root;
    return $t > 1e-4 ? $t : undef;
}

sub shaded {
    my ($spheres, $at) = @_;
    my @to = normal(map { $light[$_] - $at->[$_] } 0 .. 2);
    defined meet($_, $at, \@to) and return 1 for @$spheres;
    return 0;
}

sub dot { my ($a, $b) = @_; return $a->[0] * $b->[0] + $a->[1] * $b->[1] + $a->[2] * $b->[2] }

sub normal { my $length = sqrt($_[0]**2 + $_[1]**2 + $_[2]**2); return map { $_ / $length } @_ }

# PNG's own frame around data: length, name, data, checksum.
sub chunk {
    my ($name, $data) = @_;
    my $crc = 0xFFFFFFFF;
    $crc = $crc_table[($crc ^ $_) & 255] ^ ($crc >> 8) for unpack 'C*', "$name$data";
    return pack('N', length $data) . $name . $data . pack 'N', $crc ^ 0xFFFFFFFF;
}

# zlib's format with nothing compressed, so that perl's core is enough.
sub stored {
    my ($data) = @_;
    my ($a, $b, $out) = (1, 0, "\x78\x01");
    for (unpack 'C*', $data) { $a = ($a + $_) % 65521; $b = ($b + $a) % 65521 }
    while (length $data) {
        my $part = substr $data, 0, 65535, '';
        $out .= pack('Cvv', length $data ? 0 : 1, length $part, ~length($part) & 0xFFFF) . $part;
    }
    return $out . pack 'N', $b << 16 | $a;
}
