"""The verdict of a run, added to the experiment tracker that the run used (`lfdoctor analyze RUN --write-back`); one file a tracker."""
