import time, cProfile, pstats
def test_prof(run_grid):
    for i in range(3):
        t=time.time(); c=time.process_time()
        p=cProfile.Profile(); p.enable()
        r=run_grid(seed=200+(i//2))
        p.disable()
        print("RUN", i, time.time()-t, time.process_time()-c, r.tasks)
        pstats.Stats(p).sort_stats("cumtime").print_stats(18)
