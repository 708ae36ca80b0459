#!/usr/bin/env bash
# Stitching on SVHN: what 02_stitch_cifar10.sh does, with the networks of SVHN.
DATASET=svhn
source "$(dirname "$0")/02_stitch_cifar10.sh"
