#!/usr/bin/perl
# Checks that every PNG in a folder is whole and that no two are the same: perl check.pl FOLDER
use strict;
use warnings;

my ($folder) = @ARGV or die "usage: check.pl FOLDER\n";
my @files = sort glob "$folder/*.png" or die "there is no PNG in $folder\n";
my %seen;
for my $file (@files) {
    open my $in, '<:raw', $file or die "could not read $file: $!\n";
    my $bytes = do { local $/; <$in> };
    die "$file is not a whole PNG\n" unless $bytes =~ /\A\x89PNG\r\n\x1a\n.*IEND\xAEB`\x82\z/s;
    die "$file is the same picture as $seen{$bytes}\n" if $seen{$bytes};
    $seen{$bytes} = $file;
}
printf "%d frames are whole and differ\n", scalar @files;
